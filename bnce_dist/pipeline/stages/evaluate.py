"""Weigh held-out samples of the emulator, and judge the energy model by exact likelihoods."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.data.shards import ShardedDataset
from bnce_dist.pipeline.emulator import Emulator, LearnedDensity
from bnce_dist.pipeline.evaluation import evaluate_samples
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.generate import SAMPLE_UNITS, Sampler, num_shards
from bnce_dist.pipeline.target import Target

_EVALUATION_UNITS = {
    "positions_nm": "nm",
    "phi": "rad",
    "psi": "rad",
    "reduced_potential": "kT",
    "log_density": "nat",
    "log_det_decode": "nat",
    "valid": "1",
    "native_chirality": "1",
    "mirrored": "1",
    "cpu_seconds": "s",
}
_EXACT_UNITS = {"log_density_z": "nat", "cpu_seconds": "s"}


def run(context: StageContext) -> None:
    """Leave the data sets ``held_out``, ``evaluated`` and ``exact``, sample for sample."""
    config = context.config.evaluate
    emulator_path = context.inputs["train_emulator"] / "emulator.pt"
    held_out = context.executor.map_shards(
        partial(
            Sampler,
            emulator_path=emulator_path,
            num_samples=config.num_samples,
            shard_size=config.shard_size,
            stream=(context.config.seed, "held out"),
        ),
        num_shards(config.num_samples, config.shard_size),
        context.folder / "held_out",
        metadata=context.metadata(SAMPLE_UNITS),
        label="sample",
    )
    context.executor.map_shards(
        partial(
            Evaluator,
            target=context.target,
            density_path=context.inputs["train_energy"] / "energy.pt",
            samples_folder=held_out.folder,
        ),
        len(held_out),
        context.folder / "evaluated",
        metadata=context.metadata(_EVALUATION_UNITS),
        label="evaluate",
    )
    context.executor.map_shards(
        partial(
            ExactLikelihood,
            emulator_path=emulator_path,
            samples_folder=held_out.folder,
            num_samples=config.num_exact,
            shard_size=config.exact_shard_size,
        ),
        num_shards(config.num_exact, config.exact_shard_size),
        context.folder / "exact",
        metadata=context.metadata(_EXACT_UNITS),
        label="exact likelihood",
    )


class Evaluator:
    """Evaluates shards of model-space samples under the target and the learned density.

    Args:
        target: Gives the reduced potential, phi, psi and the chirality centres.
        density_path: The energy model's file.
        samples_folder: Data set with ``z``.
    """

    def __init__(self, target: Target, density_path: Path, samples_folder: Path) -> None:
        self.target = target
        self.density = LearnedDensity.load(density_path, molecule=target.molecule.identity)
        self.samples = ShardedDataset.open(samples_folder)

    @torch.no_grad()
    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return everything about one shard's samples.

        Samples that are no molecule get an infinite reduced potential, that is, weight zero.
        """
        z = torch.from_numpy(self.samples.read(index, ["z"])["z"])
        log_density_z, cpu_seconds = self._timed_log_density(z)
        arrays = evaluate_samples(self.target, self.density.coordinates, z, log_density_z)
        arrays["positions_nm"] = arrays["positions_nm"].float()
        arrays["cpu_seconds"] = torch.full((len(z),), cpu_seconds / len(z), dtype=torch.float64)
        return {name: array.numpy() for name, array in arrays.items()}

    def _timed_log_density(self, z: Tensor) -> tuple[Tensor, float]:
        self.density.log_density_z(z)  # The first call pays for memory and caches.
        started = time.process_time()
        log_density = self.density.log_density_z(z)
        return log_density, time.process_time() - started


class ExactLikelihood:
    """Computes the emulator's own log density of its samples, shard by shard.

    Args:
        emulator_path: The emulator's file.
        samples_folder: Data set with ``z_prior``, from which the samples were made.
        num_samples: How many of the samples, from the first on.
        shard_size: Samples of each shard but the last.
    """

    def __init__(
        self, emulator_path: Path, samples_folder: Path, num_samples: int, shard_size: int
    ) -> None:
        self.emulator = Emulator.load(emulator_path)
        z_prior = ShardedDataset.open(samples_folder).load(["z_prior"])["z_prior"][:num_samples]
        self.shards = torch.from_numpy(z_prior).split(shard_size)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the log densities of one shard and the time each sample took."""
        z_prior = self.shards[index]
        started = time.process_time()
        log_density = self.emulator.transport_with_log_density(z_prior)[1]
        cpu_seconds = (time.process_time() - started) / len(z_prior)
        return {
            "log_density_z": log_density.double().numpy(),
            "cpu_seconds": np.full(len(z_prior), cpu_seconds),
        }
