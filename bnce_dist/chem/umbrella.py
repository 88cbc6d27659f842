"""Umbrella sampling of (phi, psi) with replica exchange between neighbouring windows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.force_field import ForceField
from bnce_dist.chem.langevin import (
    MOLAR_GAS_CONSTANT,
    Langevin,
    LangevinSettings,
    relax,
    repartitioned_masses,
)
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.replica_exchange import WindowGrid, window_centres
from bnce_dist.chem.starts import with_torsions
from bnce_dist.chem.torsion_bias import TorsionBias
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator

Progress = Callable[[int, int], None]
"""Called with the exchange intervals done and their total."""


@dataclass(frozen=True)
class UmbrellaSettings:
    """A periodic grid of windows in phi and psi, and how long to sample it.

    Args:
        num_phi: Windows along phi, even.
        num_psi: Windows along psi, even.
        phi_stiffness_kj_mol: k in k (1 - cos(phi - phi0)) [kJ/mol].
        psi_stiffness_kj_mol: The same for psi [kJ/mol].
        num_copies: Copies of the grid in one batch; they exchange only within themselves.
        langevin: Dynamics at the target temperature.
        exchange_interval_steps: Steps between exchanges; the angles are recorded there.
        burn_in_ps: Hot dynamics before anything else, per chain [ps].
        burn_in_temperature_kelvin: Its temperature [K].
        equilibration_ps: Discarded dynamics at the target temperature, per chain [ps].
        production_ps: Recorded dynamics, per chain [ps].
        positions_interval_ps: Time between recorded positions [ps].
    """

    num_phi: int = 12
    num_psi: int = 12
    phi_stiffness_kj_mol: float = 20.0
    psi_stiffness_kj_mol: float = 20.0
    num_copies: int = 2
    langevin: LangevinSettings = field(default_factory=LangevinSettings)
    exchange_interval_steps: int = 50
    burn_in_ps: float = 5.0
    burn_in_temperature_kelvin: float = 600.0
    equilibration_ps: float = 10.0
    production_ps: float = 40.0
    positions_interval_ps: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_phi", "num_psi"):
            count = getattr(self, name)
            if count < 4 or count % 2:
                raise InputError(
                    name, expected="an even number of at least 4", got=count,
                    remedy="neighbours are paired around the circle; choose for example 12",
                )
        for name in ("num_copies", "exchange_interval_steps", "production_ps"):
            if getattr(self, name) <= 0:
                raise InputError(
                    name, expected="a positive number", got=getattr(self, name),
                    remedy=f"set {name} above zero",
                )

    @property
    def num_windows(self) -> int:
        """Windows in one copy of the grid."""
        return self.num_phi * self.num_psi

    @property
    def num_chains(self) -> int:
        """Chains that run at once."""
        return self.num_copies * self.num_windows

    @property
    def interval_ps(self) -> float:
        """Time between exchanges [ps]."""
        return self.exchange_interval_steps * self.langevin.timestep_fs * 1e-3

    @property
    def reduced_stiffness(self) -> tuple[float, float]:
        """Bias strength along (phi, psi) [kT]."""
        kt = MOLAR_GAS_CONSTANT * self.langevin.temperature_kelvin
        return self.phi_stiffness_kj_mol / kt, self.psi_stiffness_kj_mol / kt

    def centres(self) -> np.ndarray:
        """Return the window centres (phi, psi), ``(num_windows, 2)`` [rad]."""
        return torch.cartesian_prod(
            window_centres(self.num_phi), window_centres(self.num_psi)
        ).numpy()

    def reduced_bias(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Return the bias of every window at every sample, ``(num_windows, samples)`` [kT]."""
        centres, (k_phi, k_psi) = self.centres(), self.reduced_stiffness
        return k_phi * (1 - np.cos(phi - centres[:, :1])) + k_psi * (
            1 - np.cos(psi - centres[:, 1:])
        )


@dataclass(frozen=True)
class UmbrellaSamples:
    """What one run recorded; chains of copy c are ``c * num_windows .. (c + 1) * num_windows``.

    Args:
        settings: The grid and the dynamics.
        seed: Seed of the run.
        phi: ``(frames, chains)`` float32 [rad].
        psi: ``(frames, chains)`` float32 [rad].
        window: Window each chain was in, ``(frames, chains)`` int16.
        positions_nm: ``(position_frames, chains, atoms, 3)`` float32 [nm].
        positions_stride: Row r of the positions belongs to frame ``(r + 1) * stride - 1``.
        acceptance: Accepted share of exchanges along (phi, psi).
        seconds: Wall time of the dynamics recorded here [s].
    """

    settings: UmbrellaSettings
    seed: int
    phi: np.ndarray
    psi: np.ndarray
    window: np.ndarray
    positions_nm: np.ndarray
    positions_stride: int
    acceptance: tuple[float, float]
    seconds: float


class UmbrellaSampler:
    """One batch of chains over the window grid; its whole future is a function of its state.

    Args:
        force_field: Batched forces; float32 is enough for dynamics.
        molecule: Gives the start, the masses and the atoms of phi and psi.
        settings: The grid and the dynamics.
        seed: Runs with different seeds have different starts and noise.
    """

    def __init__(
        self, force_field: ForceField, molecule: Molecule, settings: UmbrellaSettings, seed: int
    ) -> None:
        self.force_field, self.molecule = force_field, molecule
        self.settings, self.seed = settings, seed
        self.masses = repartitioned_masses(
            molecule.masses_dalton, molecule.elements, molecule.bonds,
            settings.langevin.hydrogen_mass_dalton,
        )
        self.centres = torch.from_numpy(settings.centres()).float()
        chain_at = torch.arange(settings.num_chains).view(
            settings.num_copies, settings.num_phi, settings.num_psi
        )
        self.grid = WindowGrid(chain_at, settings.reduced_stiffness)
        self.bias = TorsionBias(
            (molecule.phi, molecule.psi),
            (settings.phi_stiffness_kj_mol, settings.psi_stiffness_kj_mol),
            self.centres.repeat(settings.num_copies, 1),
        )
        self.intervals_done = 0
        self.positions_nm = self.velocities = torch.empty(0)

    def start(self) -> None:
        """Put every chain into its window and shake the chains apart with a hot run."""
        settings, random = self.settings, generator(self.seed, "umbrella start")
        starts = with_torsions(
            torch.as_tensor(self.molecule.positions_nm, dtype=torch.float32),
            self.molecule.bonds, (self.molecule.phi, self.molecule.psi), self.bias.centres,
        )
        starts = relax(self._forces, starts)
        hot = self._langevin(settings.burn_in_temperature_kelvin)
        steps = round(settings.burn_in_ps / (settings.langevin.timestep_fs * 1e-3))
        self.positions_nm, _ = hot.run(
            starts, hot.thermal_velocities(starts, random), steps, random
        )
        self.velocities = self._langevin().thermal_velocities(self.positions_nm, random)

    def advance(self, duration_ps: float, progress: Progress | None = None) -> UmbrellaSamples:
        """Run for a time per chain and return what was recorded on the way.

        Args:
            duration_ps: Time per chain, rounded to whole exchange intervals [ps].
            progress: Called after every interval.
        """
        settings, began = self.settings, time.perf_counter()
        num_intervals = max(1, round(duration_ps / settings.interval_ps))
        stride = max(1, round(settings.positions_interval_ps / settings.interval_ps))
        shape = (num_intervals, settings.num_chains)
        angles = np.empty((*shape, 2), dtype=np.float32)
        window = np.empty(shape, dtype=np.int16)
        positions = []
        dynamics = self._langevin()
        for interval in range(num_intervals):
            random = generator(self.seed, "umbrella interval", self.intervals_done)
            self.positions_nm, self.velocities = dynamics.run(
                self.positions_nm, self.velocities, settings.exchange_interval_steps, random
            )
            current = self.bias.angles(self.positions_nm)
            angles[interval] = current.numpy()
            window[interval] = self.grid.window_of_chain().numpy()
            if (interval + 1) % stride == 0:
                positions.append(self.positions_nm.numpy())
            self.grid.exchange(current.double(), random)
            self._follow_windows()
            self.intervals_done += 1
            if progress is not None:
                progress(interval + 1, num_intervals)
        atoms = self.positions_nm.shape[1]
        return UmbrellaSamples(
            settings=settings, seed=self.seed, phi=angles[..., 0], psi=angles[..., 1],
            window=window, positions_stride=stride,
            positions_nm=np.array(positions).reshape(-1, settings.num_chains, atoms, 3),
            acceptance=self.grid.acceptance, seconds=time.perf_counter() - began,
        )

    def state(self) -> dict[str, Any]:
        """Return plain arrays from which ``restore`` continues bit for bit."""
        return {
            "positions_nm": self.positions_nm.numpy(),
            "velocities": self.velocities.numpy(),
            "chain_at": self.grid.chain_at.numpy(),
            "intervals_done": self.intervals_done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.positions_nm = torch.from_numpy(np.array(state["positions_nm"]))
        self.velocities = torch.from_numpy(np.array(state["velocities"]))
        self.grid.chain_at = torch.from_numpy(np.array(state["chain_at"]))
        self.intervals_done = int(state["intervals_done"])
        self._follow_windows()

    def _langevin(self, temperature_kelvin: float | None = None) -> Langevin:
        settings = self.settings.langevin
        if temperature_kelvin is not None:
            settings = replace(settings, temperature_kelvin=temperature_kelvin)
        return Langevin(self._forces, self.masses, settings)

    def _forces(self, positions_nm: Tensor) -> Tensor:
        forces = self.force_field.energy_and_forces_kj_mol(positions_nm)[1]
        return self.bias.add_forces(positions_nm, forces)

    def _follow_windows(self) -> None:
        self.bias.centres = self.centres[self.grid.window_of_chain()]


def run_umbrella(
    force_field: ForceField,
    molecule: Molecule,
    settings: UmbrellaSettings,
    seed: int,
    progress: Progress | None = None,
) -> UmbrellaSamples:
    """Run one independent replica of the whole grid, from its own starts, on this thread.

    Args:
        force_field: Batched forces; float32 is enough for dynamics.
        molecule: Gives the start, the masses and the atoms of phi and psi.
        settings: The grid and the dynamics.
        seed: Runs with different seeds are independent.
        progress: Called after every exchange interval of the production.

    Raises: InputError: a chain left the finite numbers.
    """
    sampler = UmbrellaSampler(force_field, molecule, settings, seed)
    sampler.start()
    sampler.advance(settings.equilibration_ps)
    return sampler.advance(settings.production_ps, progress)
