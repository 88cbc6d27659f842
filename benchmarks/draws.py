"""How long the last of many ranks takes to draw its part of a training step.

    OMP_NUM_THREADS=1 python benchmarks/draws.py

The other ranks need not run: the numbers show whether what one rank does grows with theirs.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from record import publish, summary
from scaling import STAGES, make_task

from bnce_dist.training.draws import draw_batch


def seconds(stage: str, rows: int, world_size: int, rounds: int, folder: Path) -> list[float]:
    """Return how long each of so many steps took the last rank [s]."""
    task = make_task(folder, stage, rows * world_size, num_steps=rounds)
    # More samples than a step takes, as in a large training, so that rows are drawn too.
    data = torch.zeros(1, task.open_data().shape[1]).expand(rows * world_size + 1, -1).numpy()
    objective = task.create_objective()
    part = slice(rows * (world_size - 1), rows * world_size)
    times = []
    for step in range(rounds):
        started = time.perf_counter()
        draw_batch(objective, data, task.settings, step, part)
        times.append(time.perf_counter() - started)
    return times


def main(
    rows: Annotated[int, typer.Option(help="Samples of a rank.")] = 512,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks, with commas.")] = "1,8,64,512",
    rounds: Annotated[int, typer.Option(help="Steps of each.")] = 100,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    numbers = {"rows": rows, "unit": "seconds per step"}
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            numbers[stage] = {
                count: summary(seconds(stage, rows, int(count), rounds, Path(folder)))
                for count in ranks.split(",")
            }
    publish("draws", numbers, ["torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
