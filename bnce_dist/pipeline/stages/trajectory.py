"""Trajectories of the user's in the places of what a run would simulate."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.simulation.trajectory import Trajectory, read_trajectory
from bnce_dist.core.device import worker_device
from bnce_dist.core.errors import InputError
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config

TRAJECTORY_UNITS = {
    "phi": "rad",
    "psi": "rad",
    "log_weights": "nat",
    "positions_nm": "nm",
    "reduced_potential": "kT",
}


def check_trajectories(config: Config, target: Target) -> None:
    """Read the trajectories that a configuration names, before anything expensive.

    Raises: InputError: one cannot be used.
    """
    for section in (config.reference, config.dataset):
        if section.trajectory is not None:
            read(target, Path(section.trajectory), section.stride)


def read(target: Target, path: Path, stride: int) -> Trajectory:
    """Return a trajectory of the target's molecule at its temperature.

    Raises: InputError: it cannot be used.
    """
    temperature_kelvin = target.force_field.temperature_kelvin
    return read_trajectory(path, target.molecule, temperature_kelvin, stride=stride)


class ReferenceReader:
    """Reads a trajectory as if it were an umbrella simulation of one window.

    Args:
        target: Gives the molecule and the energies.
        path: Of the trajectory.
        stride: Every how many frames one is kept.
        num_blocks: Blocks in time; each takes the place of a chain.
    """

    def __init__(self, target: Target, path: Path, stride: int, num_blocks: int) -> None:
        self.target = target.to(worker_device())
        self.path, self.stride, self.num_blocks = path, stride, num_blocks

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the frames, blocks beside each other.

        Returns: ``phi``, ``psi`` and ``log_weights``, ``(times, 1, blocks)``; ``positions_nm``,
            ``(times, blocks, atoms, 3)``, and ``reduced_potential``, ``(times, blocks)``.
        """
        trajectory = read(self.target, self.path, self.stride)
        times = len(trajectory.positions_nm) // self.num_blocks
        kept = times * self.num_blocks
        positions = torch.from_numpy(trajectory.positions_nm[:kept])
        with torch.no_grad():
            potential = self.target.force_field.reduced_potential(
                positions.double().to(worker_device())
            )
        self._require_alike(potential.cpu().numpy(), trajectory.log_weights[:kept])
        molecule = self.target.molecule

        def beside(series: Any) -> np.ndarray:
            array = np.asarray(series)
            return np.moveaxis(array.reshape(self.num_blocks, times, *array.shape[1:]), 0, 1)

        return {
            "phi": beside(dihedral(positions, molecule.phi))[:, None],
            "psi": beside(dihedral(positions, molecule.psi))[:, None],
            "log_weights": beside(trajectory.log_weights[:kept])[:, None],
            "positions_nm": beside(positions),
            "reduced_potential": beside(potential.cpu()),
        }

    def _require_alike(self, potential: np.ndarray, log_weights: np.ndarray) -> None:
        """Refuse frames of another force field or temperature.

        By equipartition the energy spreads by sqrt(f / 2) kT over f degrees of freedom.
        """
        freedom = 3 * self.target.molecule.num_atoms - 6
        order = potential.argsort()
        below = np.exp(log_weights - log_weights.max())[order].cumsum()
        low, high = potential[order][np.searchsorted(below, below[-1] * np.array([0.16, 0.84]))]
        spread = (high - low) / 2
        expected = (freedom / 2) ** 0.5
        if not 0.5 * expected < spread < 2 * expected:
            raise InputError(
                f"trajectory {self.path}",
                expected=f"energies that spread by about {expected:.1f} kT at the target's "
                f"{self.target.force_field.temperature_kelvin:g} K",
                got=f"{spread:.1f} kT",
                remedy="name the force field and temperature that the trajectory was made with; "
                "constrained bonds spread less, and rounded positions more",
            )


class FrameReader:
    """Deals the frames of a trajectory to shards of training data.

    Args:
        target: Gives the molecule.
        path: Of the trajectory.
        stride: Every how many frames one is kept.
        num_shards: Of the data set.
    """

    def __init__(self, target: Target, path: Path, stride: int, num_shards: int) -> None:
        self.parts = np.array_split(read(target, path, stride).positions_nm, num_shards)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return ``positions_nm``, ``(frames, atoms, 3)``."""
        return {"positions_nm": self.parts[index]}
