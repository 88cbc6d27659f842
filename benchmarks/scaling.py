"""Throughput of energy matching on 1 and 2 Ray Train workers, and on the loop without Ray.

The global batch stays the same, so that all three train the same model; every worker computes
on one thread. They take turns, so that whatever else the machine does hits all alike. The rate
is that of whole reporting intervals after the first, without start-up.

    OMP_NUM_THREADS=1 python benchmarks/ray_train_scaling.py --write
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from record import publish, summary
from torch import nn

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.data.atomic import atomic_path
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.train import fit
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.training import local
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingTask

# Alanine dipeptide in internal coordinates.
NUM_EUCLIDEAN, NUM_CIRCULAR = 55, 5


def build_objective() -> nn.Module:
    """Return the energy objective of the main job, with its default model."""
    path = ProductPath(TrigonometricInterpolant(), NUM_EUCLIDEAN, NUM_CIRCULAR)
    return EnergyMatching(LateFusionEnergy(NUM_EUCLIDEAN, NUM_CIRCULAR), path)


def make_task(folder: Path, batch_size: int, num_steps: int) -> TrainingTask:
    """Return the task on random data."""
    data_path = folder / "z.npy"
    z = np.random.default_rng(0).standard_normal((65_536, NUM_EUCLIDEAN + NUM_CIRCULAR))
    with atomic_path(data_path) as temporary, temporary.open("wb") as stream:
        np.save(stream, z.astype(np.float32))
    settings = TrainSettings(
        num_steps=num_steps,
        global_batch_size=batch_size,
        warmup_steps=0,
        report_interval=5,
        checkpoint_interval=num_steps,
    )
    metadata = TrainingMetadata("energy", "random numbers")
    return TrainingTask(build_objective, data_path, settings, metadata)


def main(
    batch_size: Annotated[int, typer.Option(help="Global batch.")] = 1024,
    num_steps: Annotated[int, typer.Option(help="Steps per run.")] = 60,
    rounds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    ensure_ray(num_cpus=2)
    kinds = {
        "without_ray": local.fit,
        "ray_1_worker": partial(fit, num_workers=1),
        "ray_2_workers": partial(fit, num_workers=2),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as directory:
        task = make_task(Path(directory), batch_size, num_steps)
        for number in range(rounds):
            for kind, run in kinds.items():
                history = run(task, Path(directory) / f"{kind}_{number}").history
                rates[kind] += [record["samples_per_second"] for record in history[1:]]
    medians = {kind: summary(values)["median"] for kind, values in rates.items()}
    publish(
        "ray_train_scaling",
        {
            "objective": f"EnergyMatching(LateFusionEnergy({NUM_EUCLIDEAN}, {NUM_CIRCULAR}))",
            "global_batch_size": batch_size,
            "unit": "samples per second, one thread per worker",
            **{kind: summary(values) for kind, values in rates.items()},
            "speedup_of_2_workers": medians["ray_2_workers"] / medians["ray_1_worker"],
            "ray_overhead": 1 - medians["ray_1_worker"] / medians["without_ray"],
            "rounds": rounds,
        },
        ["torch", "ray", "bnce_dist"],
        write=write,
    )


if __name__ == "__main__":
    typer.run(main)
