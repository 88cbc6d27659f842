"""Anneal held-out samples from the learned density to the target, on the pool of actors."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bnce_dist.core.annealing import AnnealingSchedule
from bnce_dist.core.device import worker_device
from bnce_dist.core.random import generator
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.annealing import Annealer, AnnealingConfig, draw_pilot
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.context import StageContext

ANNEALED = "annealed"
"""Name of the data set of the run's own temperature."""
_UNITS = {
    "z": "1",
    "positions_nm": "nm",
    "phi": "rad",
    "psi": "rad",
    "reduced_potential": "kT",
    "log_density": "nat",
    "log_det_decode": "nat",
    "log_weights": "nat",
    "valid": "1",
    "native_chirality": "1",
    "mirrored": "1",
    "accepted": "1",
    "clashed": "1",
    "cpu_seconds": "s",
}


SCHEDULE_UNITS = {"fractions": "1", "step_sizes": "1", "num_leapfrog": "1", "widths": "1"}


def annealed_at(temperature_kelvin: float) -> str:
    """Return the name of the data set of another temperature."""
    return f"{ANNEALED}_{temperature_kelvin:.12g}K"


def annealed_fractions(folder: Path) -> np.ndarray:
    """Return the levels of the run's own temperature, ``(levels,)``.

    Args:
        folder: That the data set ``annealed`` is in.
    """
    return ShardedDataset.open(folder / _schedule_of(ANNEALED)).load(["fractions"])["fractions"]


def anneal_held_out(context: StageContext, held_out: ShardedDataset) -> ShardedDataset:
    """Leave the data set ``annealed``, sample for sample, and the schedule beside it.

    So for each of the other temperatures that are asked for.
    """
    annealed = _anneal(context, held_out, context.target, ANNEALED, "anneal")
    for temperature_kelvin in context.config.other_temperatures_kelvin:
        target = context.target.at_temperature(temperature_kelvin)
        label = f"anneal to {temperature_kelvin:g} K"
        _anneal(context, held_out, target, annealed_at(temperature_kelvin), label)
    return annealed


def _anneal(
    context: StageContext, held_out: ShardedDataset, target: Target, name: str, label: str
) -> ShardedDataset:
    make_annealer = partial(
        load_annealer,
        target=target,
        density_path=context.inputs["train_energy"] / "energy.pt",
        compiled=context.config.cluster.compile_force_field,
    )
    return context.executor.map_shards(
        partial(
            AnnealingWorker,
            make_annealer,
            schedule=_schedule(context, make_annealer, name),
            samples_folder=held_out.folder,
            seed=context.config.seed,
        ),
        len(held_out),
        context.folder / name,
        metadata=context.metadata(_UNITS),
        label=label,
    )


def load_annealer(target: Target, density_path: Path, compiled: bool) -> Annealer:
    """Return what anneals samples on this worker, from the file of their density."""
    identity, device = target.molecule.identity, worker_device()
    density = LearnedDensity.load(density_path, molecule_identity=identity).to(device)
    return Annealer.of(density, target.to(device), compiled=compiled)


class AnnealingWorker:
    """Anneals shards of model-space samples.

    Args:
        make_annealer: Loads the density.
        schedule: Levels and step sizes, the same for every shard.
        samples_folder: Data set with ``z``.
        seed: Of the run; with the index of a shard it decides the moves.
    """

    def __init__(
        self,
        make_annealer: "partial[Annealer]",
        *,
        schedule: AnnealingSchedule,
        samples_folder: Path,
        seed: int,
    ) -> None:
        self.annealer, self.schedule, self.seed = make_annealer(), schedule, seed
        self.samples = ShardedDataset.open(samples_folder)

    def __call__(self, index: int) -> Mapping[str, np.ndarray]:
        """Return everything about one shard's samples where they arrived."""
        device = self.annealer.density.device
        z = torch.from_numpy(self.samples.read(index, ["z"])["z"]).to(device)
        noise = generator(self.seed, "anneal", index, device=device)
        started = time.process_time()
        arrays = dict(self.annealer.anneal(z, self.schedule, noise))
        cpu_seconds = (time.process_time() - started) / len(z)
        arrays["positions_nm"] = arrays["positions_nm"].float()
        arrays["cpu_seconds"] = torch.full((len(z),), cpu_seconds, dtype=torch.float64)
        return {name: array.cpu().numpy() for name, array in arrays.items()}


class Tuner:
    """Finds the levels and step sizes of annealing from a pilot of its own.

    Args:
        make_annealer: Loads the density.
        emulator_path: The emulator's file.
        config: How many levels, or how many there may be.
        seed: Of the run.
    """

    def __init__(
        self,
        make_annealer: "partial[Annealer]",
        emulator_path: Path,
        config: AnnealingConfig,
        seed: int,
    ) -> None:
        self.annealer, self.config, self.seed = make_annealer(), config, seed
        self.emulator = Emulator.load(emulator_path).to(self.annealer.density.device)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the schedule, level by level."""
        key = (self.seed, "annealing")
        pilot = draw_pilot(self.emulator, self.config, *key)
        return schedule_arrays(self.annealer.tune(pilot, self.config, *key))


def _schedule_of(name: str) -> str:
    return f"{name}_schedule"


def _schedule(
    context: StageContext, make_annealer: "partial[Annealer]", name: str
) -> AnnealingSchedule:
    """Return the schedule of an interrupted call, or find it."""
    levels = context.executor.map_shards(
        partial(
            Tuner,
            make_annealer,
            context.inputs["train_emulator"] / "emulator.pt",
            context.config.evaluate.annealing,
            context.config.seed,
        ),
        1,
        context.folder / _schedule_of(name),
        metadata=context.metadata(SCHEDULE_UNITS),
        label="tune annealing",
    )
    return schedule_from(levels.load())


def schedule_arrays(schedule: AnnealingSchedule) -> dict[str, np.ndarray]:
    """Return a schedule as a shard, level by level."""
    return {
        "fractions": np.array(schedule.fractions),
        "step_sizes": np.array(schedule.step_sizes),
        "num_leapfrog": np.full(schedule.num_levels, schedule.num_leapfrog),
        "widths": np.array(schedule.widths),
    }


def schedule_from(levels: Mapping[str, np.ndarray]) -> AnnealingSchedule:
    """Return the schedule that `schedule_arrays` described."""
    return AnnealingSchedule(
        tuple(levels["fractions"].tolist()),
        tuple(levels["step_sizes"].tolist()),
        int(levels["num_leapfrog"][0]),
        levels["widths"].tolist(),
    )
