"""Training in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnce_dist.core.device import worker_device
from bnce_dist.training.checkpoint import (
    CHECKPOINT,
    keep_last,
    load_resumable,
    save_checkpoint,
)
from bnce_dist.training.loop import train
from bnce_dist.training.progress import TrainingDisplay
from bnce_dist.training.task import Record, TrainingResult, TrainingTask


def fit(
    task: TrainingTask,
    folder: str | Path,
    *,
    accumulation_steps: int = 1,
    report: Callable[[Record], None] | None = None,
) -> TrainingResult:
    """Train, continuing from the last checkpoint in ``folder``, whoever left it there.

    Args:
        task: What to train.
        folder: The task's own folder.
        accumulation_steps: Equal parts in which a batch is gone through.
        report: Called with every record of the loss history.

    Raises: InputError: the data or the checkpoint cannot be used, or the loss is not finite.
    """
    started = time.monotonic()
    path = Path(folder) / CHECKPOINT
    keep_last(Path(folder))
    data = task.open_data()
    resume = load_resumable(path, task) if path.exists() else None
    done = resume["step"] if resume else 0

    def save(content: dict[str, Any]) -> None:
        save_checkpoint(path, content, task)

    with TrainingDisplay(task, done, report) as display:
        state = train(
            task.create_objective().to(worker_device()),
            data,
            task.settings,
            accumulation_steps=accumulation_steps,
            resume=resume,
            validate=task.validate,
            report=display.show,
            save=save,
        )
    return TrainingResult(path, state.history, time.monotonic() - started)
