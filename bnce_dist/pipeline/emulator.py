"""The two things a run leaves for use: a sampler and a density, each in one file."""

import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates import CenteredCartesian, Coordinates, from_state
from bnce_dist.chem.features import dipeptide_features
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.divergence import jacobian, reverse_jacobian, sample_with_log_density
from bnce_dist.core.errors import InputError
from bnce_dist.core.ode import midpoint
from bnce_dist.core.path import ProductPath
from bnce_dist.data.torch_file import write_torch
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.models import (
    ENERGY_MODELS,
    VELOCITY_MODELS,
    NodeFeatures,
    VelocityModel,
    build_path,
)

SCHEMA_VERSION = 1


class ModelFile(ABC):
    """What the two have in common: a path from data to prior, and a file.

    Its ``kind`` labels the file.
    """

    kind: ClassVar[str]
    coordinates: Coordinates
    interpolant: str

    @property
    def path(self) -> ProductPath:
        """The path from data to prior."""
        coordinates = self.coordinates
        return build_path(self.interpolant, coordinates.num_euclidean, coordinates.num_circular)

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `to_state` described."""

    def save(self, path: Path) -> None:
        """Write this to one file, atomically."""
        write_torch(path, self.to_state())

    @classmethod
    def load(cls, path: Path, *, molecule: str | None = None) -> Self:
        """Read a file that ``save`` wrote.

        Args:
            path: The file.
            molecule: If given, the identity it must have.

        Raises: InputError: absent, torn, or of something else.
        """
        return cls.from_state(load_state(path, cls.kind, molecule))


@dataclass(frozen=True)
class Emulator(ModelFile):
    """Draws molecules that are approximately Boltzmann distributed.

    Args:
        molecule: Identity of the molecule (``Molecule.identity``).
        coordinates: Between positions and model space; float64.
        velocity_field: The trained flow.
        num_ode_steps: Midpoint steps from noise to data.
        ode_time_exponent: Above 1 the steps shorten towards the data.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "emulator"

    molecule: str
    coordinates: Coordinates
    velocity_field: VelocityModel
    num_ode_steps: int
    ode_time_exponent: float
    interpolant: str = "trigonometric"

    @property
    def node_features(self) -> NodeFeatures | None:
        """Features of the molecule's atoms, if the coordinates are Cartesian."""
        if isinstance(self.velocity_field, MeanFreeVelocity):
            return self.velocity_field.molecule.node_features.tolist()
        return None

    def of_molecule(self, molecule: Molecule) -> "Emulator":
        """Return the same field for another dipeptide.

        Raises: InputError: not a dipeptide, or an emulator in coordinates of one molecule.
        """
        field, scale_nm = self.cartesian_field()
        return replace(
            self,
            molecule=molecule.identity,
            coordinates=CenteredCartesian(molecule.num_atoms, scale_nm),
            velocity_field=MeanFreeVelocity(field, dipeptide_features(molecule)),
        )

    def cartesian_field(self) -> tuple[GVPVectorField, float]:
        """Return the field that other molecules can share, and its unit of length [nm].

        Raises: InputError: the emulator is in internal coordinates.
        """
        coordinates, velocity = self.coordinates, self.velocity_field
        if not isinstance(coordinates, CenteredCartesian) or isinstance(velocity, InternalVelocity):
            raise InputError(
                "emulator",
                expected="a Cartesian field",
                got="one in internal coordinates, which belong to one molecule",
                remedy="train one with --transferable",
            )
        return velocity.field, float(coordinates.scale_nm)

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw positions, ``(num_samples, atoms, 3)`` [nm]."""
        z_prior = self.path.sample_prior(num_samples, generator)
        return self.coordinates.decode(self.transport(z_prior))[0]

    def transport(self, z_prior: Tensor) -> Tensor:
        """Return where the flow takes samples of the prior, ``(batch, dim)``."""
        return midpoint(
            self.velocity_field,
            z_prior,
            self.num_ode_steps,
            wrap=self.path.wrap,
            time_exponent=self.ode_time_exponent,
        )

    def transport_with_log_density(self, z_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``transport(z_prior)`` and its exact log density, thousands of times slower.

        Returns: ``(batch, dim)`` and ``(batch,)`` [nats], in model space.
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

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""
        settings = {
            "architecture": self.velocity_field.architecture,
            "num_ode_steps": self.num_ode_steps,
            "ode_time_exponent": self.ode_time_exponent,
            "interpolant": self.interpolant,
        }
        return _state(self.kind, self.molecule, self.coordinates, self.velocity_field, settings)

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


@dataclass(frozen=True)
class LearnedDensity(ModelFile):
    """The emulator's density, from one pass through the energy model.

    Args:
        molecule: Identity of the molecule (``Molecule.identity``).
        coordinates: Between positions and model space; float64.
        energy_model: The trained model.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "energy"

    molecule: str
    coordinates: Coordinates
    energy_model: EnergyModel
    interpolant: str = "trigonometric"

    @torch.no_grad()
    def log_density(self, positions_nm: Tensor) -> Tensor:
        """Return the normalised log density of molecules, modulo rigid motion.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [nats].
        Raises: InputError: wrong shape, not finite, or a singular geometry.
        """
        z, log_det = self.coordinates.encode(positions_nm)
        return self.log_density_z(z.float()).double() + log_det

    @torch.no_grad()
    def log_density_z(self, z: Tensor) -> Tensor:
        """Return the normalised log density in model space, ``(batch,)`` [nats]."""
        return self.energy_model.log_density_z(z, self.path)

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""
        settings = {
            "architecture": self.energy_model.architecture,
            "interpolant": self.interpolant,
        }
        return _state(self.kind, self.molecule, self.coordinates, self.energy_model, settings)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the density that `to_state` described."""
        settings = dict(state["settings"])
        # Version 0.1 knew one architecture and did not write it down.
        architecture = settings.pop("architecture", LateFusionEnergy.architecture)
        energy_model = ENERGY_MODELS[architecture](**state["model"])
        energy_model.load_state_dict(state["weights"])
        return cls(
            state["molecule"],
            from_state(state["coordinates"]),
            energy_model.eval(),
            **settings,
        )


def _state(
    kind: str,
    molecule: str,
    coordinates: Coordinates,
    model: VelocityModel | EnergyModel,
    settings: dict[str, Any],
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "molecule": molecule,
        "coordinates": coordinates.to_state(),
        "model": model.config(),
        "weights": model.state_dict(),
        "settings": settings,
    }


def load_state(path: Path, kind: str, molecule: str | None = None) -> dict[str, Any]:
    """Read a model file.

    Args:
        path: A model file.
        kind: What it must be of.
        molecule: If given, the identity it must have.

    Raises: InputError: absent, torn, or of something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = (content["schema_version"], content["kind"], content["molecule"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"model {path}",
            expected=f"a complete {kind} file",
            got=(str(error) or type(error).__name__).splitlines()[0],
            remedy="delete it and run the stage that writes it again",
        ) from error
    expected = (SCHEMA_VERSION, kind, molecule or found[2])
    if found != expected:
        raise InputError(
            f"model {path}",
            expected="schema version {}, kind {}, molecule {:.12}".format(*expected),
            got="schema version {}, kind {}, molecule {:.12}".format(*found),
            remedy="give the file that belongs to this molecule and purpose",
        )
    return content
