"""What a killed actor, worker or node costs: recovery times, and whether anything is lost.

    OMP_NUM_THREADS=1 python benchmarks/faults.py --write

- 200 shards by a pool of two actors, one of which is killed every five seconds, against the same
  shards undisturbed.
- A training on two workers, one of which is killed: time until the group works again.
- The same with whole nodes (tests/distributed/nodes_that_die.py), with a spare node and elastic.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from record import publish
from scaling import build_objective, make_task
from torch import nn

from bnce_dist.core.random import generator
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.pool import map_shards
from bnce_dist.distributed.train import fit
from bnce_dist.training.task import Record

NODES = Path(__file__).parents[1] / "tests" / "distributed" / "nodes_that_die.py"
SHARD_SECONDS = 0.4
CHECKPOINT_INTERVAL = 20


class SlowShards:
    """Random numbers that take their time; every process leaves its number in a folder."""

    def __init__(self, pids: Path) -> None:
        pids.mkdir(exist_ok=True)
        (pids / str(os.getpid())).touch()

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard."""
        time.sleep(SHARD_SECONDS)
        seed = int(generator(0, "faults", index).initial_seed())
        return {"x": np.random.default_rng(seed).standard_normal(1000)}


def numbers_in(pids: Path) -> list[int]:
    """Return the process numbers in a folder."""
    return [int(path.name) for path in pids.iterdir()]


def kill_some(
    pids: Path, interval_seconds: float, over: threading.Event, killed: list[int]
) -> None:
    """Kill one living process of a folder of process numbers every so often."""
    choose = random.Random(0)
    while not over.wait(interval_seconds):
        alive = [pid for pid in numbers_in(pids) if Path(f"/proc/{pid}").exists()]
        if alive:
            killed.append(choose.choice(alive))
            os.kill(killed[-1], signal.SIGKILL)


def killed_actors(folder: Path, num_shards: int, interval_seconds: float) -> dict[str, Any]:
    """Return what became of a pool whose actors are killed."""
    metadata = DatasetMetadata("faults", {"x": "1"})
    times: dict[str, float] = {}
    checksums: dict[str, list[str]] = {}
    killed: list[int] = []
    for name in ("undisturbed", "disturbed"):
        pids, over = folder / f"{name}_pids", threading.Event()
        pids.mkdir()
        killer = threading.Thread(target=kill_some, args=(pids, interval_seconds, over, killed))
        if name == "disturbed":
            killer.start()
        started = time.monotonic()
        shards = map_shards(
            partial(SlowShards, pids), num_shards, folder / name,
            metadata=metadata, label=name, num_actors=2,
        )  # fmt: skip
        times[name] = time.monotonic() - started
        over.set()
        checksums[name] = [shard.sha256 for shard in ShardedDataset.open(shards.folder).shards]
    return {
        "num_shards": num_shards,
        "num_distinct": len(set(checksums["disturbed"])),
        "num_killed": len(killed),
        "bit_identical": checksums["disturbed"] == checksums["undisturbed"],
        "seconds_undisturbed": times["undisturbed"],
        "seconds_disturbed": times["disturbed"],
    }


def build_named_objective(pids: Path) -> nn.Module:
    """Return the energy objective; its process leaves its number in a folder."""
    pids.mkdir(exist_ok=True)
    (pids / str(os.getpid())).touch()
    return build_objective("energy")


def killed_worker(folder: Path, num_steps: int = 120) -> dict[str, Any]:
    """Return how long a training group stands still when one of its workers is killed."""
    task, pids = make_task(folder, "energy", 512, num_steps), folder / "pids"
    task = replace(
        task,
        build_objective=partial(build_named_objective, pids),
        settings=task.settings.model_copy(update={"checkpoint_interval": CHECKPOINT_INTERVAL}),
    )
    seen: list[tuple[float, float]] = []
    killed: list[tuple[float, float]] = []

    def kill_once(record: Record) -> None:
        seen.append((time.monotonic(), record["step"]))
        if record["step"] >= num_steps / 2 and not killed:
            killed.append(seen[-1])
            os.kill(max(numbers_in(pids)), signal.SIGKILL)

    fit(task, folder / "killed_worker", num_workers=2, report=kill_once)
    ((moment, step),) = killed
    return {
        "recovered_after_seconds": min(t for t, s in seen if s > step and t > moment + 1) - moment,
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "num_steps": num_steps,
    }


def killed_nodes(folder: Path) -> dict[str, Any]:
    """Return how long trainings stand still when a node dies, by what is left to them."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-W", "ignore", NODES, folder], check=True, stdout=subprocess.DEVNULL
    )
    events = json.loads((folder / "events.json").read_text())
    return {
        name: {key: value for key, value in event.items() if key != "steps"}
        for name, event in events.items()
    }


def main(
    num_shards: Annotated[int, typer.Option(help="Shards of the pool.")] = 200,
    interval: Annotated[float, typer.Option(help="Seconds between kills.")] = 5.0,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        nodes = killed_nodes(folder / "nodes")
        ensure_ray(num_cpus=2)
        numbers = {
            "actors": killed_actors(folder, num_shards, interval),
            "worker": killed_worker(folder),
            "nodes": nodes,
        }
    publish("faults", numbers, ["torch", "ray", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
