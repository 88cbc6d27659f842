"""An executor that lets a sweep follow and branch the training of its trials."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, ShardWorker
from bnce_dist.pipeline.executor import Executor
from bnce_dist.training.checkpoint import branch_checkpoint
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

Item = TypeVar("Item")
Output = TypeVar("Output")

CHECKPOINT = "checkpoint.pt"
# The training whose settings sweeps are about, and whose records schedulers judge.
STAGE = "energy"


class TrialExecutor:
    """An executor whose training of the energy model can be followed and continues another.

    Args:
        executor: Does the work.
        start: Checkpoint to go on from where the training has none of its own, if it exists.
        report: Called with the record whenever there is a new checkpoint, and with its path,
            or with None at the end of the training, which leaves nothing to decide.
    """

    def __init__(
        self, executor: Executor, start: Path, report: Callable[[Record, Path | None], None]
    ) -> None:
        self._executor, self._start, self._report = executor, start, report

    def fit(
        self, task: TrainingTask, folder: Path, *, report: Callable[[Record], None] | None = None
    ) -> TrainingResult:
        """Train, continuing from the last checkpoint in ``folder`` or from the start."""
        if task.metadata.stage != STAGE:
            return self._executor.fit(task, folder, report=report)
        checkpoint, settings = folder / CHECKPOINT, task.settings
        if self._start.exists() and not checkpoint.exists():
            branch_checkpoint(self._start, checkpoint, task)

        def follow(record: Record) -> None:
            if report is not None:
                report(record)
            if record["step"] == settings.num_steps:
                self._report(record, None)
            elif record["step"] % settings.checkpoint_interval == 0:
                self._report(record, checkpoint)

        return self._executor.fit(task, folder, report=follow)

    def map_jobs(
        self, job: Callable[[Item, Executor], Output], items: Sequence[Item], *, label: str = ""
    ) -> list[Output | Exception]:
        """Run jobs that need an executor themselves."""
        return self._executor.map_jobs(job, items, label=label)

    def map_shards(
        self,
        make_worker: Callable[[], ShardWorker],
        num_shards: int,
        folder: Path,
        *,
        metadata: DatasetMetadata,
        label: str,
    ) -> ShardedDataset:
        """Write the missing shards."""
        return self._executor.map_shards(
            make_worker, num_shards, folder, metadata=metadata, label=label
        )

    def release(self) -> None:
        """Free what is kept."""
        self._executor.release()
