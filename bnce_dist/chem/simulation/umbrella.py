"""Umbrella sampling of (phi, psi) with replica exchange between neighbouring windows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.geometry import with_torsions
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.bias import FlatteningBias, Torsions
from bnce_dist.chem.simulation.langevin import (
    Langevin,
    LangevinSettings,
    relax,
    repartitioned_masses,
    require_finite,
)
from bnce_dist.chem.simulation.replica_exchange import WindowGrid, Windows
from bnce_dist.chem.simulation.rotamer_bias import RotamerBias, backbone_pairs
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.core.random import generator

ReportProgress = Callable[[float, float], None]
"""Called with the time that every chain has been simulated, and that it will be [ps]."""

BURN_IN_TEMPERATURE_KELVIN = 600.0
"""Temperature of the hot dynamics before everything else [K]."""
FLATTENING_ORDER = 6
"""Highest harmonic of the bias that levels the landscape."""
MAX_REDRAWS = 10
"""Times that side chains which clash are drawn again."""
CLASH_KT = 100.0
"""Energy above the median, after relaxation, that only atoms inside each other have [kT]."""


RECORDED = ("phi", "psi", "window", "common_bias")
"""What is recorded of every frame."""


@dataclass(frozen=True)
class WindowFrames:
    """Frames of chains that umbrella windows held: what a free energy is estimated from.

    Args:
        windows: The grid.
        phi: ``(frames, chains)`` float32 [rad].
        psi: ``(frames, chains)`` float32 [rad].
        window: Window each chain was in, ``(frames, chains)`` int16.
        common_bias: The bias that all windows share, ``(frames, chains)`` float32 [kT].
    """

    windows: Windows
    phi: np.ndarray
    psi: np.ndarray
    window: np.ndarray
    common_bias: np.ndarray


@dataclass(frozen=True)
class UmbrellaSamples(WindowFrames):
    """What one run recorded.

    Args:
        positions_nm: ``(position_frames, chains, atoms, 3)`` float32 [nm].
        positions_stride: Row r of the positions belongs to frame ``(r + 1) * stride - 1``.
        acceptance: Accepted share of exchanges along (phi, psi).
        seconds: Wall time of the dynamics recorded here [s].
    """

    positions_nm: np.ndarray
    positions_stride: int
    acceptance: tuple[float, float]
    seconds: float

    def in_times(self, name: str) -> np.ndarray:
        """Return what was recorded, cut at recorded positions, ``(times, frames, chains)``.

        Args:
            name: One of ``RECORDED``.
        """
        times, chains = self.positions_nm.shape[:2]
        whole = getattr(self, name)[: times * self.positions_stride]
        return whole.reshape(times, self.positions_stride, chains)


class UmbrellaSampler:
    """One batch of chains over the window grid; its whole future is a function of its state.

    Everything is on the force field's device but the landscape, which is fitted on the CPU.

    Args:
        force_field: Batched forces and the temperature; float32 is enough for dynamics.
        molecule: Gives the start, the masses and the atoms of phi and psi.
        config: The grid and the dynamics.
        seed: Runs with different seeds have different starts and noise.
        progress: Called after every exchange interval.
    """

    def __init__(
        self,
        force_field: ForceField,
        molecule: Molecule,
        config: ReferenceConfig,
        seed: int,
        progress: ReportProgress | None = None,
    ) -> None:
        self.force_field, self.molecule = force_field, molecule
        self.config, self.seed, self.progress = config, seed, progress
        device = self.device = force_field.device
        self.windows = config.windows(force_field.temperature_kelvin)
        self.langevin = LangevinSettings(force_field.temperature_kelvin, config.timestep_fs)
        self.masses = repartitioned_masses(
            molecule.masses_dalton,
            molecule.elements,
            molecule.bonds,
            self.langevin.hydrogen_mass_dalton,
        )
        self.centres = torch.from_numpy(self.windows.centres()).float().to(device)
        stiffness = [config.phi_stiffness_kj_mol, config.psi_stiffness_kj_mol]
        self.stiffness = torch.tensor(stiffness, device=device)
        self.chain_centres = self.centres
        rotatable = molecule.rotatable_torsions
        self.torsions = Torsions((molecule.phi, molecule.psi, *rotatable), device)
        self.flattening = FlatteningBias.none(FLATTENING_ORDER, device)
        self.rotamers = RotamerBias.none(
            len(rotatable), device, backbone_pairs(molecule, rotatable)
        )
        self.grid = WindowGrid(self.windows, device)
        self.intervals_done = 0
        self.positions_nm = self.velocities = torch.empty(0)

    def start(self) -> None:
        """Put every chain into its window, the other torsions anywhere, and shake it hot."""
        random = generator(self.seed, "umbrella start", device=self.device)
        starts = self._relaxed_starts(random)
        clashed = self._are_clashed(starts)
        for _ in range(MAX_REDRAWS):
            if not clashed.any():
                break
            starts = torch.where(clashed[:, None, None], self._relaxed_starts(random), starts)
            clashed = self._are_clashed(starts)
        hot = self._langevin(BURN_IN_TEMPERATURE_KELVIN)
        steps = round(self.config.burn_in_ps / (self.config.timestep_fs * 1e-3))
        self.positions_nm, _ = hot.run(
            starts, hot.thermal_velocities(starts, random), steps, random
        )
        self.velocities = self._langevin().thermal_velocities(self.positions_nm, random)

    def _relaxed_starts(self, random: torch.Generator) -> Tensor:
        """Return one structure for every window, ``(windows, atoms, 3)`` [nm]."""
        rotatable, num_windows = self.molecule.rotatable_torsions, len(self.windows)
        shape = (num_windows, len(rotatable))
        anywhere = 2 * torch.pi * torch.rand(shape, generator=random, device=self.device)
        starts = with_torsions(
            torch.as_tensor(self.molecule.positions_nm, dtype=torch.float32, device=self.device),
            self.molecule.bonds,
            (self.molecule.phi, self.molecule.psi, *rotatable),
            torch.cat([self.chain_centres, anywhere], dim=1),
        )
        return relax(self._forces, starts)

    def _are_clashed(self, starts: Tensor) -> Tensor:
        """Return which structures did not part where atoms were drawn into each other."""
        energies, _ = self.force_field.energy_and_forces_kj_mol(starts)
        limit = energies.median() + CLASH_KT * self.force_field.kt_kj_mol
        return ~(energies < limit)

    def flatten(self) -> None:
        """Measure the landscape and level it, so that no chain waits long before a barrier.

        A barrier along phi or psi more sharply curved than the window's own potential would
        split its window in two; one along another torsion is held by no window at all.
        """
        for _ in range(self.config.flattening_stages):
            samples, rotatable = self._advance(self.config.flattening_ps)
            self.rotamers = self.rotamers.refined(rotatable)
            self.flattening = self.flattening.refined(
                samples.phi.ravel(), samples.psi.ravel(), samples.window.ravel(), self.windows
            )

    def advance(self, duration_ps: float) -> UmbrellaSamples:
        """Run for a time per chain and return what was recorded on the way.

        Args:
            duration_ps: Time per chain, rounded to whole exchange intervals [ps].
        """
        return self._advance(duration_ps)[0]

    def _advance(self, duration_ps: float) -> tuple[UmbrellaSamples, np.ndarray]:
        """Do what `advance` does and also return the rotatable, ``(samples, torsions)`` [rad]."""
        config, began = self.config, time.perf_counter()
        num_intervals = max(1, round(duration_ps / config.interval_ps))
        stride = max(1, round(config.positions_interval_ps / config.interval_ps))
        shape = (num_intervals, len(self.windows))
        angles = np.empty((*shape, len(self.torsions.atoms)), dtype=np.float32)
        window = np.empty(shape, dtype=np.int16)
        positions = []
        dynamics = self._langevin()
        for interval in range(num_intervals):
            random = generator(
                self.seed, "umbrella interval", self.intervals_done, device=self.device
            )
            now_angles, now_window = self._advance_interval(dynamics, random)
            require_finite(self.positions_nm, dynamics.settings)
            angles[interval] = now_angles.cpu().numpy()
            window[interval] = now_window.cpu().numpy()
            if (interval + 1) % stride == 0:
                positions.append(self.positions_nm.cpu().numpy())
            if self.progress is not None:
                self.progress(self.intervals_done * config.interval_ps, config.total_ps)
        atoms = self.positions_nm.shape[1]
        phi, psi, rotatable = angles[..., 0], angles[..., 1], angles[..., 2:]
        common_bias = self.flattening.energy(phi.ravel(), psi.ravel()).reshape(shape)
        common_bias += self.rotamers.energy(rotatable)
        samples = UmbrellaSamples(
            windows=self.windows,
            phi=phi,
            psi=psi,
            window=window,
            common_bias=common_bias.astype(np.float32),
            positions_stride=stride,
            positions_nm=np.array(positions).reshape(-1, len(self.windows), atoms, 3),
            acceptance=self.grid.acceptance,
            seconds=time.perf_counter() - began,
        )
        return samples, rotatable.reshape(phi.size, rotatable.shape[-1])

    def _advance_interval(
        self, dynamics: Langevin, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Run to the next exchange and make it, without waiting for the device.

        Returns: The torsions ``(chains, torsions)`` [rad] and the window of each chain before the
            exchange, ``(chains,)``.
        """
        self.positions_nm, self.velocities = dynamics.unchecked_run(
            self.positions_nm, self.velocities, self.config.exchange_interval_steps, random
        )
        angles, window = self.torsions.angles(self.positions_nm), self.grid.window_of_chain()
        self.grid.exchange(angles[:, :2].double(), random)
        self.chain_centres = self.centres[self.grid.window_of_chain()]
        self.intervals_done += 1
        return angles, window

    def state(self) -> dict[str, Any]:
        """Return plain arrays from which ``restore`` continues bit for bit."""
        tensors = {
            "positions_nm": self.positions_nm,
            "velocities": self.velocities,
            "chain_at": self.grid.chain_at,
            "flattening": self.flattening.coefficients,
            "rotamers": self.rotamers.coefficients,
            "backbones": self.rotamers.surfaces,
        }
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        return {**arrays, "intervals_done": self.intervals_done}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""

        def tensor(name: str) -> Tensor:
            return torch.tensor(state[name], device=self.device)

        self.positions_nm, self.velocities = tensor("positions_nm"), tensor("velocities")
        self.grid.chain_at = tensor("chain_at")
        self.chain_centres = self.centres[self.grid.window_of_chain()]
        self.flattening = FlatteningBias(tensor("flattening"))
        self.rotamers = RotamerBias(tensor("rotamers"), tensor("backbones"), self.rotamers.pairs)
        self.intervals_done = int(state["intervals_done"])

    def _langevin(self, temperature_kelvin: float | None = None) -> Langevin:
        settings = self.langevin
        if temperature_kelvin is not None:
            settings = replace(settings, temperature_kelvin=temperature_kelvin)
        return Langevin(self._forces, self.masses, settings)

    def _forces(self, positions_nm: Tensor) -> Tensor:
        forces = self.force_field.energy_and_forces_kj_mol(positions_nm)[1]
        angles, gradients = self.torsions.angles_and_gradients(positions_nm)
        biased, rotatable = angles.split([2, angles.shape[1] - 2], dim=1)
        slopes = self.stiffness * torch.sin(biased - self.chain_centres)
        kt = self.force_field.kt_kj_mol
        slopes += kt * self.flattening.slopes(biased)
        slopes = torch.cat([slopes, kt * self.rotamers.slopes(rotatable)], dim=1)
        return self.torsions.add_forces(forces, gradients, slopes)


def run_umbrella(
    force_field: ForceField,
    molecule: Molecule,
    config: ReferenceConfig,
    seed: int,
    progress: ReportProgress | None = None,
) -> UmbrellaSamples:
    """Run one independent replica of the whole grid, from its own starts, on this thread.

    Args:
        force_field: Batched forces and the temperature; float32 is enough for dynamics.
        molecule: Gives the start, the masses and the atoms of phi and psi.
        config: The grid and the dynamics.
        seed: Runs with different seeds are independent.
        progress: Called after every exchange interval.

    Raises: InputError: a chain left the finite numbers.
    """
    sampler = UmbrellaSampler(force_field, molecule, config, seed, progress)
    sampler.start()
    sampler.flatten()
    sampler.advance(config.equilibration_ps)
    return sampler.advance(config.production_ps)
