"""Memory from generation to the training file: does it grow with the number of samples?

    OMP_NUM_THREADS=1 python benchmarks/streaming.py --write
    OMP_NUM_THREADS=1 python benchmarks/streaming.py --num-samples 2500000    # and 10 million

Samples of the shipped emulator go through a pool of actors into shards, and from the shards into
the file that every rank of a training maps into memory. The emulator takes one step of its ODE,
which changes how long a sample takes and not its memory. Memory that processes share is divided
among them.
"""

import os
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import ray
import typer
from faults import numbers_in
from record import publish

from bnce_dist.data.array_file import write_rows
from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.generator.shipped import load_shipped
from bnce_dist.pipeline.provenance import memory_bytes
from bnce_dist.pipeline.stages.generate import SAMPLE_UNITS, Sampler, num_shards

INTERVAL_SECONDS = 1.0
PLACES = ("driver", "actors", "object_store")


class NamedSampler(Sampler):
    """Leaves the number of its process in a folder."""

    def __init__(self, pids: Path, **settings: Any) -> None:
        (pids / str(os.getpid())).touch()
        super().__init__(**settings)


class MemoryWatch(AbstractContextManager["MemoryWatch"]):
    """Reads what the driver, all actors together and the object store hold [MB].

    Args:
        pids: Folder of the actors' process numbers.
    """

    def __init__(self, pids: Path) -> None:
        self.series: dict[str, list[float]] = {name: [] for name in ("seconds", *PLACES)}
        self._pids, self._started = pids, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()

    def peak(self, place: str) -> float:
        """Return the largest reading [MB]."""
        return max(self.series[place])

    def _watch(self) -> None:
        name = "object_store_memory"
        while not self._stop.wait(INTERVAL_SECONDS):
            reading = {
                "seconds": time.monotonic() - self._started,
                "driver": memory_bytes(psutil.Process()) / 1e6,
                "actors": sum(map(memory_bytes, map(psutil.Process, numbers_in(self._pids)))) / 1e6,
                "object_store": (ray.cluster_resources()[name] - ray.available_resources()[name])
                / 1e6,
            }
            for key, value in reading.items():
                self.series[key].append(round(value, 1))


def stream(
    executor: RayExecutor, folder: Path, emulator_path: Path, num_samples: int, shard_size: int
) -> MemoryWatch:
    """Generate so many samples, put them into a training file and return what memory it took."""
    pids = folder / "pids"
    pids.mkdir(parents=True)
    make_worker = partial(
        NamedSampler,
        pids,
        emulator_path=emulator_path,
        num_samples=num_samples,
        shard_size=shard_size,
        stream=(0, "streaming"),
    )
    with MemoryWatch(pids) as watch:
        samples = executor.map_shards(
            make_worker,
            num_shards(num_samples, shard_size),
            folder / "samples",
            metadata=DatasetMetadata("streaming", SAMPLE_UNITS),
            label=f"{num_samples:,} samples",
        )
        write_rows(folder / "z.npy", samples.stream("z"))
    return watch


def main(
    num_samples: Annotated[int, typer.Option(help="Samples of the smaller run.")] = 500_000,
    growth: Annotated[int, typer.Option(help="Times as many in the larger run.")] = 4,
    shard_size: Annotated[int, typer.Option(help="Samples per shard.")] = 5_000,
    name: Annotated[str, typer.Option(help="Of the record.")] = "streaming",
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    sizes = (num_samples, growth * num_samples)
    executor, watches = RayExecutor(), {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "emulator.pt"
        replace(load_shipped("ACE-ALA-NME").emulator, num_ode_steps=1).save(path)
        # The first use of a library takes memory once; it belongs to neither.
        stream(executor, Path(directory) / "warm", path, 10 * shard_size, shard_size)
        for size in sizes:
            folder = Path(directory) / str(size)
            watches[size] = stream(executor, folder, path, size, shard_size)
    smaller, larger = (watches[size] for size in sizes)
    millions = (sizes[1] - sizes[0]) / 1e6
    numbers = {
        "unit": "MB",
        "shard_size": shard_size,
        "mb_per_million_samples": {
            place: (larger.peak(place) - smaller.peak(place)) / millions for place in PLACES
        },
        "runs": [
            {
                "num_samples": size,
                "peak": {place: watch.peak(place) for place in PLACES},
                "series": watch.series,
            }
            for size, watch in watches.items()
        ],
    }
    publish(name, numbers, ["torch", "ray", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
