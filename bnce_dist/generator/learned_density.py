"""The density of an emulator as the energy model learned it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates import Coordinates, from_state
from bnce_dist.generator.architectures import ENERGY_MODELS
from bnce_dist.generator.model_file import ModelFile, model_state
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.energy_model import EnergyModel


@dataclass(frozen=True)
class LearnedDensity(ModelFile):
    """The emulator's density, from one pass through the energy model.

    Args:
        molecule_identity: Identity of the molecule (``Molecule.identity``).
        coordinates: Between positions and model space; float64.
        energy_model: The trained model.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "energy"

    molecule_identity: str
    coordinates: Coordinates
    energy_model: EnergyModel
    interpolant: str = "trigonometric"

    @property
    def model(self) -> EnergyModel:
        """The trained model."""
        return self.energy_model

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

    @torch.enable_grad()
    def log_density_z_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``log_density_z`` and its gradient, ``(batch,)`` [nats] and ``(batch, dim)``."""
        z = z.detach().requires_grad_()
        log_density = self.energy_model.log_density_z(z, self.path)
        (gradient,) = torch.autograd.grad(log_density.sum(), z)
        return log_density.detach(), gradient

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""
        settings = {
            "architecture": self.energy_model.architecture,
            "interpolant": self.interpolant,
        }
        return model_state(
            self.kind, self.molecule_identity, self.coordinates, self.energy_model, settings
        )

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
