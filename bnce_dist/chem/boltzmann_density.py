"""The Boltzmann distribution of a molecule as a log density over model space, with its gradient."""

from typing import Protocol

import torch
from torch import Tensor

from bnce_dist.chem.coordinates import Coordinates
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.validation import has_native_chirality
from bnce_dist.core.errors import InputError


class PotentialWithForces(Protocol):
    """A potential energy that gives forces, at some temperature."""

    num_atoms: int
    temperature_kelvin: float

    def energy_and_forces_kj_mol(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies ``(batch,)`` [kJ/mol] and forces ``(batch, atoms, 3)`` [kJ/mol/nm]."""
        ...


class BoltzmannDensity:
    r"""The log density that samples of a model should have.

    .. math:: \log \pi(z) = -u(x(z)) + \log \left| \frac{\partial x}{\partial z} \right|

    unnormalised, and :math:`-\infty` where ``z`` is no molecule or one of another chirality.

    Args:
        molecule: Its chirality centres count.
        coordinates: Of the model, in the dtype and on the device of the points.
        potential: Gives :math:`u` at its own temperature, in that dtype or float64.

    Raises: InputError: a potential without forces.
    """

    def __init__(
        self, molecule: Molecule, coordinates: Coordinates, potential: PotentialWithForces
    ) -> None:
        if not hasattr(potential, "energy_and_forces_kj_mol"):
            raise InputError(
                "target of annealing",
                expected="a potential with forces",
                got=type(potential).__name__,
                remedy="anneal to a force field or to xTB",
            )
        self.molecule, self.coordinates, self.potential = molecule, coordinates, potential
        self.kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * potential.temperature_kelvin

    @torch.no_grad()
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return log densities ``(batch,)`` [nats] and gradients ``(batch, dim)`` of points."""
        positions, log_det = self.coordinates.decode(z)
        energy, forces = self.potential.energy_and_forces_kj_mol(positions)
        # A potential may be more precise than the points: its energies stay so.
        forces = forces.to(z.dtype) / self.kt_kj_mol
        gradient = self.coordinates.pull_back(z, positions, forces)
        possible = self.coordinates.validity(z) & has_native_chirality(self.molecule, positions)
        return torch.where(possible, log_det - energy / self.kt_kj_mol, -torch.inf), gradient
