"""What a step of training costs the host of a rank besides the model, however many ranks there are.

    OMP_NUM_THREADS=1 python benchmarks/host_work.py --write

The last rank draws its part of the batch; the others need not run, the numbers show whether what
one does grows with theirs. Then the gradient is clipped, the weights move and so does their
average. All in processor time of one thread, as on a core that does nothing else.
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
from bnce_dist.training.loop import split_batch
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice


def drawing_seconds(
    stage: str, rows: int, world_size: int, rounds: int, folder: Path
) -> list[float]:
    """Return how long each of so many steps took the last rank to draw [s]."""
    task = make_task(folder, stage, rows * world_size, num_steps=rounds)
    # More samples than a step takes, as in a large training, so that rows are drawn too.
    data = torch.zeros(1, task.open_data().shape[1]).expand(rows * world_size + 1, -1).numpy()
    objective = task.create_objective()
    part = slice(rows * (world_size - 1), rows * world_size)
    times = []
    for step in range(rounds):
        started = time.process_time()
        draw_batch(objective, data, task.settings, step, part)
        times.append(time.process_time() - started)
    return times


def updating_seconds(stage: str, rounds: int, folder: Path) -> list[float]:
    """Return how long each of so many steps took behind the gradient of a few samples [s]."""
    task = make_task(folder, stage, batch_size=8, num_steps=rounds)
    objective = task.create_objective()
    state = TrainState(SingleDevice(objective, task.settings))
    times = []
    for step in range(rounds):
        batch = draw_batch(objective, task.open_data(), task.settings, step, slice(8))
        ((fraction, part),) = split_batch(batch, objective.shared, num_parts=1)
        state.strategy.accumulate(part, fraction=fraction, is_last=True)
        started = time.process_time()
        state.strategy.step(task.settings.learning_rate)
        state.update_average()
        times.append(time.process_time() - started)
        state.step += 1
    return times


def main(
    rows: Annotated[int, typer.Option(help="Samples of a rank.")] = 512,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks, with commas.")] = "1,8,64,512",
    rounds: Annotated[int, typer.Option(help="Steps of each.")] = 100,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    numbers = {"rows": rows, "unit": "processor seconds per step"}
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            drawing = {
                count: summary(drawing_seconds(stage, rows, int(count), rounds, Path(folder)))
                for count in ranks.split(",")
            }
            updating = summary(updating_seconds(stage, rounds, Path(folder)))
            numbers[stage] = {"drawing": drawing, "updating": updating}
    publish("host_work", numbers, ["torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
