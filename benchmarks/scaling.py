"""Strong and weak scaling of both stages, of generation, energies and annealing on this cluster.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py --write                 # this machine: 1, 2
    RAY_ADDRESS=... python benchmarks/scaling.py --workers 1,2,4,8 --write --name my_cluster
    python benchmarks/scaling.py --only generation,energies,annealing --write --name pools

Every number is of whole reporting intervals after the first steps, or of shards after the first of
every actor, without start-up. What is compared takes turns, so that whatever else the machine does
hits all alike. `step_model.py` explains the steps and projects them to many GPUs.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
import typer
from ray.train.torch import TorchTrainer
from record import publish, summary
from step_model import REPORT_INTERVAL, STAGES
from torch import nn

from bnce_dist.core.ode import midpoint
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import atomic_path
from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.distributed.cluster import ensure_ray, num_gpus
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.train import fit
from bnce_dist.generator.annealing import Annealer, AnnealingConfig
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_flow_matching,
)
from bnce_dist.generator.shipped import load_shipped
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.training import local
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingTask

RECORD = "scaling"
# Alanine dipeptide in internal coordinates.
NUM_EUCLIDEAN, NUM_CIRCULAR = 55, 5
# Ray goes on starting its own processes for a while after a training has begun.
SETTLING_STEPS = 20
SHARD_SIZE = {"generation": 2000, "energies": 20000, "annealing": 1000}


def build_objective(stage: str) -> nn.Module:
    """Return a stage's objective with the default model of the main job."""
    space = Space(NUM_EUCLIDEAN, NUM_CIRCULAR)
    if stage == "energy":
        return build_energy_matching(EnergyConfig(), space)
    return build_flow_matching(EmulatorConfig(), space)


def make_task(folder: Path, stage: str, batch_size: int, num_steps: int) -> TrainingTask:
    """Return a training on random data."""
    data_path = folder / "z.npy"
    if not data_path.exists():
        z = np.random.default_rng(0).standard_normal((65_536, NUM_EUCLIDEAN + NUM_CIRCULAR))
        with atomic_path(data_path) as temporary, temporary.open("wb") as stream:
            np.save(stream, z.astype(np.float32))
    settings = TrainSettings(
        num_steps=num_steps,
        global_batch_size=batch_size,
        warmup_steps=0,
        report_interval=REPORT_INTERVAL,
        checkpoint_interval=num_steps,
    )
    return TrainingTask(
        partial(build_objective, stage),
        data_path,
        settings,
        TrainingMetadata(stage, "random numbers"),
    )


class GenerationWorker:
    """Draws samples with an untrained emulator of the default size."""

    def __init__(self) -> None:
        self.velocity = InternalVelocity(NUM_EUCLIDEAN, NUM_CIRCULAR)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard."""
        size = (SHARD_SIZE["generation"], NUM_EUCLIDEAN + NUM_CIRCULAR)
        noise = torch.randn(size, generator=generator(0, "benchmark", index))
        with torch.no_grad():
            return {"z": midpoint(self.velocity, noise, 20).numpy()}


class EnergyWorker:
    """Evaluates reduced potentials of alanine dipeptide."""

    def __init__(self) -> None:
        self.target = Target.from_config(TargetConfig())

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard."""
        native = torch.from_numpy(self.target.molecule.positions_nm)
        shape = (SHARD_SIZE["energies"], *native.shape)
        noise = torch.randn(shape, generator=generator(0, "benchmark", index), dtype=torch.float64)
        with torch.no_grad():
            return {"u": self.target.force_field.reduced_potential(native + 1e-3 * noise).numpy()}


class AnnealingWorker:
    """Anneals samples of the shipped model of alanine dipeptide, the same ones in every shard."""

    def __init__(self) -> None:
        model = load_shipped("ACE-ALA-NME")
        self.annealer = Annealer.of(model.density, model.target)
        noise = model.emulator.sample_prior(SHARD_SIZE["annealing"], generator(0, "benchmark"))
        with torch.no_grad():
            self.z = model.emulator.transport(noise)
        config = AnnealingConfig(num_levels=10)
        self.schedule = self.annealer.tune(self.z[: config.num_pilot], config, 0)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard."""
        noise = generator(0, "benchmark", index)
        annealed = self.annealer.anneal(self.z, self.schedule, noise)
        return {"log_weights": annealed["log_weights"].numpy()}


WORKERS = {
    "generation": (GenerationWorker, "z"),
    "energies": (EnergyWorker, "u"),
    "annealing": (AnnealingWorker, "log_weights"),
}


class PlainProcesses:
    """Fills a folder of its own from each of several processes, side by side without Ray.

    This, not a multiple of one process, is what a pool of as many actors can reach: two logical
    cores may be one physical core, and all share the memory's bandwidth.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def map_shards(
        self,
        make_worker: Callable[[], Any],
        num_shards: int,
        folder: Path,
        *,
        metadata: DatasetMetadata,
        label: str,
    ) -> None:
        """Write the shards, an equal part in each process."""
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.number, spawn, torch.set_num_threads, (1,)) as pool:
            parts = [
                pool.submit(
                    LocalExecutor().map_shards,
                    make_worker,
                    num_shards // self.number,
                    folder / str(part),
                    metadata=metadata,
                    label=label,
                )
                for part in range(self.number)
            ]
            for part in parts:
                part.result()

    def release(self) -> None:
        """Do nothing: the processes have ended."""


def training_rates(
    folder: Path, stage: str, batch_size: int, workers: list[int], num_steps: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return samples per second without Ray, and for each number of workers both ways.

    Strong scaling keeps the global batch, weak scaling the batch of a worker. Processor time of a
    step, of all ranks together, does not count the time for which others have the cores.
    """
    runs: dict[str, tuple[int, Callable[..., Any]]] = {"without_ray": (batch_size, local.fit)}
    for count in workers:
        runs[f"strong_{count}"] = (batch_size, partial(fit, num_workers=count))
        if count > 1:
            runs[f"weak_{count}"] = (batch_size * count, partial(fit, num_workers=count))
            # What one rank of that many computes alone, for the model of the step.
            runs[f"share_{count}"] = (batch_size // count, local.fit)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    milliseconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, (batch, run) in runs.items():
            task = make_task(folder, stage, batch, num_steps)
            history = run(task, folder / f"{stage}_{name}_{number}").history
            settled = [record for record in history if record["step"] > SETTLING_STEPS]
            rates[name] += [record["samples_per_second"] for record in settled]
            milliseconds[name] += [1e3 * one["cpu_seconds"] / REPORT_INTERVAL for one in settled]
    return {
        name: summary(values) | {"cpu_ms_per_step": summary(milliseconds[name])["median"]}
        for name, values in rates.items()
    }


def pool_rates(
    folder: Path, kind: str, workers: list[int], num_shards: int, rounds: int
) -> dict[str, Any]:
    """Return samples per second without Ray and of pools, by when the shards appeared.

    ``pool_efficiency`` is a pool's throughput over that of as many plain processes on this machine.
    """
    make_worker, array = WORKERS[kind]
    metadata = DatasetMetadata(kind, {array: "1"})
    executors: dict[str, Any] = {"without_ray": (1, LocalExecutor())}
    executors |= {f"actors_{count}": (count, RayExecutor(count)) for count in workers}
    here = [count for count in workers if 1 < count <= (os.cpu_count() or 1)]
    executors |= {f"processes_{count}": (count, PlainProcesses(count)) for count in here}
    rates: dict[str, list[float]] = {name: [] for name in executors}
    for number in range(rounds):
        for name, (count, executor) in executors.items():
            target = folder / f"{kind}_{name}_{number}"
            executor.map_shards(
                make_worker, num_shards * count, target, metadata=metadata, label=f"{kind}, {name}"
            )
            executor.release()  # What comes next needs the cores.
            times = np.sort([path.stat().st_mtime for path in target.rglob("shard_*.npz")])
            times = times[count - 1 :]
            rates[name] += list(SHARD_SIZE[kind] * count / (times[count:] - times[:-count]))
    summaries = {name: summary(values) for name, values in rates.items()}
    efficiency = {
        str(n): summaries[f"actors_{n}"]["median"] / summaries[f"processes_{n}"]["median"]
        for n in here
    }
    return {**summaries, "pool_efficiency": efficiency}


def all_reduce_seconds(num_weights: int, num_workers: int, repeats: int = 30) -> float:
    """Return the median time in which the workers add up a gradient of this size."""

    def measure(config: dict[str, int]) -> float:
        import time

        device = ray.train.torch.get_device()
        gradient = torch.zeros(config["num_weights"], device=device)
        seconds = []
        for _ in range(config["repeats"]):
            torch.distributed.barrier()
            started = time.perf_counter()
            torch.distributed.all_reduce(gradient)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds))

    trainer = TorchTrainer(
        measure,
        train_loop_config={"num_weights": num_weights, "repeats": repeats},
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=num_gpus() > 0),
    )
    return float(trainer.fit().return_value)


def stage_numbers(
    folder: Path, stage: str, batch_size: int, workers: list[int], num_steps: int, rounds: int
) -> dict[str, Any]:
    """Return everything about the training of a stage."""
    rates = training_rates(folder, stage, batch_size, workers, num_steps, rounds)
    num_weights = sum(p.numel() for p in build_objective(stage).parameters())
    several = [count for count in workers if count > 1]
    return {
        **rates,
        "ray_overhead": 1 - rates["strong_1"]["median"] / rates["without_ray"]["median"],
        "ray_cpu_overhead": 1
        - rates["without_ray"]["cpu_ms_per_step"] / rates["strong_1"]["cpu_ms_per_step"],
        "num_weights": num_weights,
        "all_reduce_seconds": {str(n): all_reduce_seconds(num_weights, n) for n in several},
    }


def parts_of(only: str | None, *, is_whole: bool) -> list[str]:
    """Return what is to be measured."""
    parts = [*WORKERS, *STAGES]
    if only is None:
        return parts
    chosen = only.split(",")
    if not set(chosen) <= set(parts):
        raise typer.BadParameter(f"--only takes {', '.join(parts)}, with commas")
    if is_whole:
        raise typer.BadParameter(f"the record {RECORD} holds all parts: give another --name")
    return chosen


def main(
    workers: Annotated[str, typer.Option(help="Numbers of workers, with commas.")] = "1,2",
    batch_size: Annotated[int, typer.Option(help="Batch of one worker.")] = 1024,
    num_steps: Annotated[int, typer.Option(help="Steps per run.")] = 80,
    rounds: Annotated[int, typer.Option(help="Runs of each kind, taking turns.")] = 2,
    num_shards: Annotated[int, typer.Option(help="Shards per actor and run.")] = 5,
    only: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join([*WORKERS, *STAGES])}.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the record.")] = RECORD,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    counts = [int(count) for count in workers.split(",")]
    parts = parts_of(only, is_whole=write and name == RECORD)
    ensure_ray()
    numbers: dict[str, Any] = {"batch_size": batch_size, "unit": "samples per second"}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for part in parts:
            if part in WORKERS:
                numbers[part] = pool_rates(folder, part, counts, num_shards, rounds)
            else:
                numbers[part] = stage_numbers(folder, part, batch_size, counts, num_steps, rounds)
    publish(name, numbers, ["torch", "ray", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
