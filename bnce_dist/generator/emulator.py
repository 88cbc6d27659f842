"""What draws samples: coordinates, a flow and its integrator, in one file."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates import CenteredCartesian, Coordinates, from_state
from bnce_dist.chem.feature_sets import feature_set_of_width
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.divergence import jacobian, reverse_jacobian, sample_with_log_density
from bnce_dist.core.errors import InputError
from bnce_dist.core.inversion import invert_with_log_density
from bnce_dist.core.ode import midpoint
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import VELOCITY_MODELS, VelocityModel
from bnce_dist.generator.model_file import ModelFile, model_state
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.tokens import TokenVelocity
from bnce_dist.nn.velocity import InternalVelocity


@dataclass(frozen=True)
class Emulator(ModelFile):
    """Draws molecules that are approximately Boltzmann distributed.

    Args:
        molecule_identity: Identity of the molecule (``Molecule.identity``).
        coordinates: Between positions and model space; float64.
        velocity_field: The trained flow.
        num_ode_steps: Midpoint steps from noise to data.
        ode_time_exponent: Above 1 the steps shorten towards the data.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "emulator"

    molecule_identity: str
    coordinates: Coordinates
    velocity_field: VelocityModel
    num_ode_steps: int
    ode_time_exponent: float
    interpolant: str = "trigonometric"

    @property
    def model(self) -> VelocityModel:
        """The flow."""
        return self.velocity_field

    @property
    def space(self) -> Space:
        """The space that the flow, and an energy model of its samples, live in."""
        if isinstance(self.velocity_field, MeanFreeVelocity):
            return Space.of_atoms(self.velocity_field.molecule.node_features.tolist())
        if isinstance(self.velocity_field, TokenVelocity):
            return replace(super().space, tokens=self.velocity_field.tokens)
        return super().space

    def of_molecule(self, molecule: Molecule) -> "Emulator":
        """Return the same field for another molecule that has features of the same kind.

        Raises: InputError: it has none, or an emulator in coordinates of one molecule.
        """
        field, scale_nm = self.cartesian_field()
        features = feature_set_of_width(field.num_node_features)
        return replace(
            self,
            molecule_identity=molecule.identity,
            coordinates=CenteredCartesian(molecule.num_atoms, scale_nm),
            velocity_field=MeanFreeVelocity(field, features.of_molecule(molecule)),
        )

    def cartesian_field(self) -> tuple[GVPVectorField, float]:
        """Return the field that other molecules can share, and its unit of length [nm].

        Raises: InputError: the emulator is in internal coordinates.
        """
        coordinates, velocity = self.coordinates, self.velocity_field
        if not isinstance(coordinates, CenteredCartesian) or not isinstance(
            velocity, MeanFreeVelocity
        ):
            raise InputError(
                "emulator",
                expected="a Cartesian field",
                got="one in internal coordinates, which belong to one molecule",
                remedy="train one with --transferable",
            )
        return velocity.field, float(coordinates.scale_nm)

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw positions, ``(num_samples, atoms, 3)`` [nm]."""
        z_prior = self.sample_prior(num_samples, generator)
        return self.coordinates.decode(self.transport(z_prior))[0]

    def sample_prior(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw where `transport` begins, on the emulator's device, ``(num_samples, dim)``.

        Numbers that are drawn on the CPU are the same ones on every device.
        """
        return self.path.sample_prior(num_samples, generator).to(self.device)

    def transport(self, z_prior: Tensor) -> Tensor:
        """Return where the flow takes samples of the prior, ``(batch, dim)``."""
        return midpoint(
            self.velocity_field,
            z_prior,
            self.num_ode_steps,
            wrap=self.path.wrap,
            time_exponent=self.ode_time_exponent,
        )

    def transport_with_log_density(self, z_prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``transport(z_prior)`` and its exact log density, thousands of times slower.

        Returns: ``(batch, dim)`` and ``(batch,)`` [nats], in model space; and which of them passed
            a step that turned space inside out, ``(batch,)`` bool.
        """
        is_internal = isinstance(self.velocity_field, InternalVelocity)
        return sample_with_log_density(
            self.velocity_field,
            self.path,
            z_prior,
            self.num_ode_steps,
            time_exponent=self.ode_time_exponent,
            differentiate=jacobian if is_internal else reverse_jacobian,
        )

    def log_density_z(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the exact log density of any points in model space, as slowly.

        Args:
            z: ``(batch, dim)``.

        Returns: ``(batch,)`` [nats], and whether the noise that leads there was found, ``(batch,)``
            bool.
        """
        is_internal = isinstance(self.velocity_field, InternalVelocity)
        _, log_density, found = invert_with_log_density(
            self.velocity_field,
            self.path,
            z,
            self.num_ode_steps,
            time_exponent=self.ode_time_exponent,
            differentiate=jacobian if is_internal else reverse_jacobian,
        )
        return log_density, found

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""
        settings = {
            "architecture": self.velocity_field.architecture,
            "num_ode_steps": self.num_ode_steps,
            "ode_time_exponent": self.ode_time_exponent,
            "interpolant": self.interpolant,
        }
        return model_state(
            self.kind, self.molecule_identity, self.coordinates, self.velocity_field, settings
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the emulator that `to_state` described."""
        settings = dict(state["settings"])
        # Version 0.1 knew one architecture and did not write it down.
        architecture = settings.pop("architecture", InternalVelocity.architecture)
        velocity_field = VELOCITY_MODELS[architecture](**state["model"])
        velocity_field.load_state_dict(state["weights"])
        return cls(
            state["molecule"],
            from_state(state["coordinates"]),
            velocity_field.eval(),
            **settings,
        )
