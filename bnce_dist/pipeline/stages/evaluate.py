"""Reweight held-out samples of the emulator, and judge the energy model by exact likelihoods."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import WhitenedInternal
from bnce_dist.core.device import worker_device
from bnce_dist.core.exact_subset import ExactSubset
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.evaluation import evaluate_samples, molecule_log_weights
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.metrics import EvaluateConfig
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.annealing import anneal_held_out
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.frames import weigh_frames
from bnce_dist.pipeline.stages.generate import SAMPLE_UNITS, Sampler, num_shards

_HELD_OUT_UNITS = {**SAMPLE_UNITS, "cpu_seconds": "s"}
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
_EXACT_UNITS = {
    "row": "1",
    "is_weighted": "1",
    "inclusion": "1",
    "log_density_z": "nat",
    "inverted": "1",
    "cpu_seconds": "s",
}


def run(context: StageContext) -> None:
    """Leave ``held_out``, ``evaluated`` and ``annealed``, sample for sample, ``exact``, and
    ``exact_frames`` of the simulation.

    Samples of Cartesian models are not annealed, and their frames not weighed.
    """
    config = context.config.evaluate
    emulator_path = context.inputs["train_emulator"] / "emulator.pt"
    held_out = context.executor.map_shards(
        partial(
            HeldOutSampler,
            emulator_path=emulator_path,
            num_samples=config.num_samples,
            shard_size=config.shard_size,
            stream=(context.config.seed, "held out"),
        ),
        num_shards(config.num_samples, config.shard_size),
        context.folder / "held_out",
        metadata=context.metadata(_HELD_OUT_UNITS),
        label="sample",
    )
    evaluated = context.executor.map_shards(
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
    is_internal = isinstance(Emulator.load(emulator_path).coordinates, WhitenedInternal)
    anneals = config.annealing.enabled and is_internal
    annealed = anneal_held_out(context, held_out) if anneals else None
    subset = exact_subset(evaluated, context.target, config, annealed)
    context.executor.map_shards(
        partial(
            ExactLikelihood,
            emulator_path=emulator_path,
            samples_folder=held_out.folder,
            subset=subset,
            num_first=config.num_exact,
            shard_size=config.exact_shard_size,
        ),
        num_shards(len(subset.rows), config.exact_shard_size),
        context.folder / "exact",
        metadata=context.metadata(_EXACT_UNITS),
        label="exact likelihood",
    )
    if is_internal:
        weigh_frames(context, emulator_path)


def exact_subset(
    evaluated: ShardedDataset,
    target: Target,
    config: EvaluateConfig,
    annealed: ShardedDataset | None = None,
) -> ExactSubset:
    """Return which samples get an exact likelihood.

    Args:
        evaluated: All samples.
        target: Says which of them are in the state.
        config: Says how many.
        annealed: All samples after annealing, whose weights and places then decide.
    """
    if annealed is not None:
        arrays = annealed.load(["log_weights", "phi", "psi"])
        weights = arrays["log_weights"]
    else:
        named = ["reduced_potential", "log_density", "native_chirality", "phi", "psi"]
        arrays = evaluated.load(named)
        weights = molecule_log_weights(
            arrays["reduced_potential"], arrays["log_density"], arrays["native_chirality"]
        )
    in_state = target.state.contains(arrays["phi"], arrays["psi"])
    return config.exact_subset(weights, in_state)


class HeldOutSampler(Sampler):
    """Draws samples as the stage ``generate`` does, and measures what one costs.

    That stage keeps no times: its samples must be the same each time, for what is made of them.
    """

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return a shard of samples with their ``cpu_seconds``."""
        started = time.process_time()
        arrays = super().__call__(index)
        num_samples = len(arrays["z"])
        cpu_seconds = (time.process_time() - started) / num_samples
        return arrays | {"cpu_seconds": np.full(num_samples, cpu_seconds)}


class Evaluator:
    """Evaluates shards of model-space samples under the target and the learned density.

    Args:
        target: Gives the reduced potential, phi, psi and the chirality centres.
        density_path: The energy model's file.
        samples_folder: Data set with ``z``.
    """

    def __init__(self, target: Target, density_path: Path, samples_folder: Path) -> None:
        device, identity = worker_device(), target.molecule.identity
        self.target = target.to(device)
        self.density = LearnedDensity.load(density_path, molecule_identity=identity).to(device)
        self.samples = ShardedDataset.open(samples_folder)

    @torch.no_grad()
    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return everything about one shard's samples.

        Samples that are no molecule get an infinite reduced potential, that is, weight zero.
        """
        z = torch.from_numpy(self.samples.read(index, ["z"])["z"]).to(self.density.device)
        log_density_z, cpu_seconds = self._timed_log_density(z)
        arrays = evaluate_samples(self.target, self.density.coordinates, z, log_density_z)
        arrays["positions_nm"] = arrays["positions_nm"].float()
        arrays["cpu_seconds"] = torch.full((len(z),), cpu_seconds / len(z), dtype=torch.float64)
        return {name: array.cpu().numpy() for name, array in arrays.items()}

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
        subset: Which of the samples, and with what probability each was chosen.
        num_first: How many of them are not there for their weight.
        shard_size: Samples of each shard but the last.
    """

    def __init__(
        self,
        emulator_path: Path,
        samples_folder: Path,
        subset: ExactSubset,
        num_first: int,
        shard_size: int,
    ) -> None:
        self.emulator = Emulator.load(emulator_path).to(worker_device())
        z_prior = ShardedDataset.open(samples_folder).take("z_prior", subset.rows)
        self.shards = torch.from_numpy(z_prior).split(shard_size)
        self.rows = torch.from_numpy(subset.rows).split(shard_size)
        self.inclusion = subset.inclusion
        self.num_first = num_first

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the log densities of one shard and the time each sample took."""
        z_prior = self.shards[index].to(self.emulator.device)
        started = time.process_time()
        _, log_density, inverted = self.emulator.transport_with_log_density(z_prior)
        cpu_seconds = (time.process_time() - started) / len(z_prior)
        return {
            "row": self.rows[index].numpy(),
            "is_weighted": (self.rows[index] >= self.num_first).numpy(),
            "inclusion": self.inclusion[self.rows[index].numpy()],
            "log_density_z": log_density.double().cpu().numpy(),
            "inverted": inverted.cpu().numpy(),
            "cpu_seconds": np.full(len(z_prior), cpu_seconds),
        }
