"""Langevin dynamics of many chains at once, on any batched force function."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.core.errors import InputError

ForceFunction = Callable[[Tensor], Tensor]
"""Positions ``(chains, atoms, 3)`` [nm] to forces of the same shape [kJ/mol/nm]."""


@dataclass(frozen=True)
class LangevinSettings:
    """How the chains move.

    Args:
        temperature_kelvin: Bath temperature [K].
        timestep_fs: Integration step [fs]; 2 fs suits unconstrained bonds with the hydrogen
            mass below.
        friction_per_ps: Collision rate [1/ps].
        hydrogen_mass_dalton: Mass every hydrogen is given at the expense of its neighbour [Da].
    """

    temperature_kelvin: float
    timestep_fs: float
    friction_per_ps: float = 1.0
    hydrogen_mass_dalton: float = 3.0

    def __post_init__(self) -> None:
        for name in ("temperature_kelvin", "timestep_fs", "friction_per_ps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    name, expected="a positive number", got=value, remedy=f"set {name} above zero"
                )


def repartitioned_masses(
    masses_dalton: np.ndarray,
    elements: Sequence[str],
    bonds: Sequence[tuple[int, int]],
    hydrogen_mass_dalton: float,
) -> np.ndarray:
    """Return masses with every hydrogen made heavier at the expense of the atom that bears it.

    The configurational distribution does not depend on the masses, but the fastest vibration,
    and with it the longest stable time step, does.

    Args:
        masses_dalton: Natural masses, ``(atoms,)`` [Da].
        elements: Element symbols, one per atom.
        bonds: Pairs of bonded atoms.
        hydrogen_mass_dalton: New mass of each hydrogen [Da].

    Returns: ``(atoms,)`` [Da] with the same sum.
    Raises: InputError: an atom that bears hydrogens would be left without mass.
    """
    masses = np.array(masses_dalton, dtype=np.float64)
    for first, second in bonds:
        for hydrogen, bearer in ((first, second), (second, first)):
            if elements[hydrogen] == "H" and elements[bearer] != "H":
                masses[bearer] -= hydrogen_mass_dalton - masses[hydrogen]
                masses[hydrogen] = hydrogen_mass_dalton
    if masses.min() <= 0:
        raise InputError(
            "hydrogen_mass_dalton",
            expected="a mass that leaves every heavy atom some of its own",
            got=hydrogen_mass_dalton,
            remedy="choose a value near 3",
        )
    return masses


class Langevin:
    """BAOAB integrator of independent chains of one molecule.

    .. math:: m \\ddot x = F(x) - m \\gamma \\dot x + \\sqrt{2 m \\gamma k_B T}\\, \\xi

    Args:
        forces: The force function, kJ/mol/nm.
        masses_dalton: ``(atoms,)`` [Da].
        settings: Time step, friction and temperature.

    Source: Leimkuhler and Matthews (2013), J. Chem. Phys. 138, 174102.
    """

    def __init__(
        self, forces: ForceFunction, masses_dalton: np.ndarray | Tensor, settings: LangevinSettings
    ) -> None:
        self.forces = forces
        self.settings = settings
        # One mass per coordinate: broadcasting over x, y, z costs several times the arithmetic.
        self.masses = torch.as_tensor(masses_dalton, dtype=torch.float64)[:, None].repeat(1, 3)

    def thermal_velocities(self, positions_nm: Tensor, generator: torch.Generator) -> Tensor:
        """Draw Maxwell-Boltzmann velocities of the positions' shape and type [nm/ps]."""
        thermal_speed = self._thermal_speed(positions_nm)
        return thermal_speed * _normal_like(positions_nm, generator)

    def run(
        self, positions_nm: Tensor, velocities: Tensor, num_steps: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Advance every chain.

        Args:
            positions_nm: ``(chains, atoms, 3)`` [nm].
            velocities: ``(chains, atoms, 3)`` [nm/ps].
            num_steps: Time steps to take.
            generator: Source of the thermal noise, on the positions' device.

        Returns: The new positions and velocities; the arguments are left as they were.
        Raises: InputError: a chain left the finite numbers.
        """
        positions, velocities = self.unchecked_run(positions_nm, velocities, num_steps, generator)
        # What is not finite stays so, and to look at every step would make a GPU wait.
        require_finite(positions, self.settings)
        return positions, velocities

    @torch.no_grad()
    def unchecked_run(
        self, positions_nm: Tensor, velocities: Tensor, num_steps: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Do what `run` does and leave `require_finite` to the caller: never wait for the device.

        Args:
            positions_nm: As for `run`.
            velocities: As for `run`.
            num_steps: As for `run`.
            generator: As for `run`.

        Returns: The new positions and velocities; the arguments are left as they were.
        """
        step_ps = self.settings.timestep_fs * 1e-3
        memory = math.exp(-self.settings.friction_per_ps * step_ps)
        kick = (0.5 * step_ps / self._masses_beside(positions_nm)).to(positions_nm.dtype)
        noise_scale = math.sqrt(1.0 - memory**2) * self._thermal_speed(positions_nm)

        positions, velocities = positions_nm.clone(), velocities.clone()
        forces = self.forces(positions)
        for _ in range(num_steps):
            velocities.addcmul_(kick, forces)
            positions.add_(velocities, alpha=0.5 * step_ps)
            velocities.mul_(memory).addcmul_(noise_scale, _normal_like(velocities, generator))
            positions.add_(velocities, alpha=0.5 * step_ps)
            forces = self.forces(positions)
            velocities.addcmul_(kick, forces)
        return positions, velocities

    def _masses_beside(self, positions_nm: Tensor) -> Tensor:
        """Return the masses where the positions are: moved there once, since a copy waits."""
        self.masses = self.masses.to(positions_nm.device)
        return self.masses

    def _thermal_speed(self, positions_nm: Tensor) -> Tensor:
        kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * self.settings.temperature_kelvin
        return torch.sqrt(kt_kj_mol / self._masses_beside(positions_nm)).to(positions_nm.dtype)


@torch.no_grad()
def relax(
    forces: ForceFunction,
    positions_nm: Tensor,
    num_steps: int = 500,
    step_nm2_mol_per_kj: float = 2e-6,
    max_displacement_nm: float = 0.002,
) -> Tensor:
    """Descend the energy with bounded displacements, so that clashes part before dynamics.

    Args:
        forces: The force function, kJ/mol/nm.
        positions_nm: ``(chains, atoms, 3)`` [nm].
        num_steps: Steps of steepest descent.
        step_nm2_mol_per_kj: Displacement per force; stable below 2 / (stiffest spring constant).
        max_displacement_nm: Largest displacement of a coordinate in one step [nm].

    Returns: Positions of the same shape [nm].
    """
    for _ in range(num_steps):
        displacement = step_nm2_mol_per_kj * forces(positions_nm)
        positions_nm = positions_nm + displacement.clamp(-max_displacement_nm, max_displacement_nm)
    return positions_nm


def _normal_like(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def require_finite(positions_nm: Tensor, settings: LangevinSettings) -> None:
    """Refuse positions of chains that exploded.

    Args:
        positions_nm: ``(chains, atoms, 3)`` [nm].
        settings: Of the dynamics.

    Raises: InputError: a chain left the finite numbers.
    """
    if math.isfinite(positions_nm.sum().item()):  # One pass; the search below is for the message.
        return
    lost = (~torch.isfinite(positions_nm).flatten(1).all(dim=1)).nonzero().flatten().tolist()
    raise InputError(
        "Langevin dynamics",
        expected="finite positions",
        got=f"{len(lost)} of {len(positions_nm)} chains not finite ({lost[:5]})",
        remedy=f"shorten timestep_fs (now {settings.timestep_fs:g}) or relax the starts",
    )
