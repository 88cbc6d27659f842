"""Reduced potentials: anything that gives an energy in kT for a batch of positions."""

from typing import Protocol

import openmm
import torch
from torch import Tensor

from bnce_dist.chem.potentials.force_field import (
    BOLTZMANN_KJ_MOL_KELVIN,
    require_positions,
    require_temperature,
)
from bnce_dist.core.errors import InputError


class ReducedPotential(Protocol):
    """A target: its Boltzmann density is exp(-u)."""

    num_atoms: int
    temperature_kelvin: float

    def reduced_potential(self, positions_nm: Tensor) -> Tensor:
        """Return the energies ``(batch,)`` [kT] of positions ``(batch, atoms, 3)`` [nm]."""
        ...


class OpenMMPotential:
    """OpenMM's own evaluation, one conformation at a time: the oracle of the batched one.

    Args:
        system: The System to evaluate.
        temperature_kelvin: Temperature of the reduced potential [K].
        platform: ``"Reference"`` (double precision) or ``"CPU"`` (mixed precision, faster).
        num_threads: Threads of the CPU platform.

    Raises: InputError: the temperature is not positive or the platform is unknown.
    """

    def __init__(
        self,
        system: openmm.System,
        temperature_kelvin: float,
        *,
        platform: str = "Reference",
        num_threads: int = 1,
    ) -> None:
        if platform not in ("Reference", "CPU"):
            raise InputError(
                "platform", expected="'Reference' or 'CPU'", got=repr(platform),
                remedy="choose one of the two",
            )  # fmt: skip
        self.temperature_kelvin = require_temperature(temperature_kelvin)
        self.num_atoms = system.getNumParticles()
        properties = {"Threads": str(num_threads)} if platform == "CPU" else {}
        self._context = openmm.Context(
            system,
            openmm.VerletIntegrator(0.001),
            openmm.Platform.getPlatformByName(platform),
            properties,
        )

    def reduced_potential(self, positions_nm: Tensor) -> Tensor:
        """Return the potential energy in units of kT; see ``ForceField.reduced_potential``."""
        energy, _ = self.energy_and_forces_kj_mol(positions_nm)
        return energy / (BOLTZMANN_KJ_MOL_KELVIN * self.temperature_kelvin)

    def energy_and_forces_kj_mol(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return potential energies and forces; see ``ForceField.energy_and_forces_kj_mol``."""
        require_positions(positions_nm, self.num_atoms)
        energy = torch.empty(len(positions_nm), dtype=torch.float64)
        forces = torch.empty(positions_nm.shape, dtype=torch.float64)
        for index, conformation in enumerate(positions_nm.detach().cpu().double().numpy()):
            self._context.setPositions(conformation)
            state = self._context.getState(energy=True, forces=True)
            energy[index] = state.getPotentialEnergy()._value
            forces[index] = torch.from_numpy(state.getForces(asNumpy=True)._value)
        return energy.to(positions_nm.device), forces.to(positions_nm.device)
