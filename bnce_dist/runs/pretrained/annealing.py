"""Anneal samples of a pretrained field, which are positions, from their learned density."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.geometry import dihedral
from bnce_dist.core.annealing import AnnealingSchedule
from bnce_dist.core.random import generator
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.annealing import Annealer, AnnealingConfig
from bnce_dist.pipeline.stages.annealing import schedule_arrays
from bnce_dist.runs.pretrained.workers import valid_samples

ANNEALED_UNITS = {
    "positions_nm": "nm",
    "phi": "rad",
    "psi": "rad",
    "reduced_potential": "kT",
    "log_weights": "nat",
    "accepted": "1",
    "clashed": "1",
    "cpu_seconds": "s",
}


class PilotWorker:
    """Finds the levels and step sizes of annealing.

    Args:
        make_annealer: Loads the density.
        pilot_nm: Molecules for which nothing else is asked, ``(samples, atoms, 3)`` [nm].
        config: How many levels, or how many there may be.
        seed: Of the run.
    """

    def __init__(
        self,
        make_annealer: Callable[[], Annealer],
        pilot_nm: np.ndarray,
        config: AnnealingConfig,
        seed: int,
    ) -> None:
        self.annealer, self.config, self.seed = make_annealer(), config, seed
        self.pilot = _encode(self.annealer, pilot_nm)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the schedule, level by level."""
        return schedule_arrays(self.annealer.tune(self.pilot, self.config, self.seed, "annealing"))


class AnnealingWorker:
    """Anneals shards of samples.

    Args:
        make_annealer: Loads the density.
        schedule: Levels and step sizes, the same for every shard.
        samples_folder: Data set that `workers.FieldWorker` made.
        seed: Of the run; with the index of a shard it decides the moves.
    """

    def __init__(
        self,
        make_annealer: Callable[[], Annealer],
        schedule: AnnealingSchedule,
        samples_folder: Path,
        seed: int,
    ) -> None:
        self.annealer, self.schedule, self.seed = make_annealer(), schedule, seed
        self.samples = ShardedDataset.open(samples_folder)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return where one shard's samples arrived, and their log weights [nats].

        Samples that are not the molecule stay where they are, without weight.
        """
        samples, started = self.samples.read(index), time.process_time()
        valid, num_levels = valid_samples(samples), self.schedule.num_levels
        arrays = self._unmoved(samples["positions_nm"], num_levels)
        if valid.any():
            noise = generator(self.seed, "anneal", index, device=self.annealer.density.device)
            z = _encode(self.annealer, samples["positions_nm"][valid])
            arrived = self.annealer.anneal(z, self.schedule, noise)
            for name, array in arrays.items():
                array[valid] = arrived[name].cpu().numpy()
        cpu_seconds = (time.process_time() - started) / len(valid)
        return arrays | {"cpu_seconds": np.full(len(valid), cpu_seconds)}

    def _unmoved(self, positions_nm: np.ndarray, num_levels: int) -> dict[str, np.ndarray]:
        molecule, number = self.annealer.target.molecule, len(positions_nm)
        positions = torch.from_numpy(positions_nm).double()
        return {
            "positions_nm": positions_nm.copy(),
            "phi": dihedral(positions, molecule.phi).numpy(),
            "psi": dihedral(positions, molecule.psi).numpy(),
            "reduced_potential": np.full(number, np.inf),
            "log_weights": np.full(number, -np.inf),
            "accepted": np.zeros((number, num_levels), dtype=bool),
            "clashed": np.zeros((number, num_levels), dtype=bool),
        }


def _encode(annealer: Annealer, positions_nm: np.ndarray) -> Tensor:
    """Return molecules in model space, ``(samples, dim)``."""
    density = annealer.density
    positions = torch.from_numpy(positions_nm).double().to(density.device)
    return density.coordinates.encode(positions)[0].float()
