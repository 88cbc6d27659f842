"""How a stage gets its work done: here, in this process; or on a cluster (`distributed`)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from bnce_dist.data.shards import (
    DatasetMetadata,
    ShardedDataset,
    ShardWorker,
    missing_shards,
    write_shard,
)
from bnce_dist.training.progress import Progress, listening

if TYPE_CHECKING:  # Importing torch takes seconds in every process that runs a job.
    from bnce_dist.training.task import Record, TrainingResult, TrainingTask

Item = TypeVar("Item")
Output = TypeVar("Output")


class Executor(Protocol):
    """Runs a stage's work. Every executor gives the same results."""

    def map_jobs(
        self, job: Callable[[Item, "Executor"], Output], items: Sequence[Item], *, label: str = ""
    ) -> list[Output | Exception]:
        """Run jobs that need an executor themselves, as many at once as keep all workers busy.

        Args:
            job: Called with an item and an executor of the job's own share of the workers.
            items: One per job.
            label: Of the progress bar; without one there is none.

        Returns: What each job returned or raised; a failed one does not stop the others, and the
            job of a lost worker is run again.
        """
        ...

    def fit(
        self,
        task: "TrainingTask",
        folder: Path,
        *,
        report: "Callable[[Record], None] | None" = None,
    ) -> "TrainingResult":
        """Train, continuing from the last checkpoint in ``folder`` if there is one.

        Args:
            task: What to train.
            folder: The task's own folder, on storage all nodes share.
            report: Called in this process with every record of the loss history.
        """
        ...

    def map_shards(
        self,
        make_worker: Callable[[], ShardWorker],
        num_shards: int,
        folder: Path,
        *,
        metadata: DatasetMetadata,
        label: str,
    ) -> ShardedDataset:
        """Write the missing shards ``0 .. num_shards - 1`` of ``folder`` and open the data set.

        Args:
            make_worker: Builds what computes shards (models, force field), once per process.
            num_shards: How many shards the data set has.
            folder: The data set's folder, on storage all nodes share.
            metadata: What the arrays mean and what decides them.
            label: Of the progress bar.
        """
        ...

    def release(self) -> None:
        """Free what is kept from one data set to the next, at the end of a stage."""
        ...


class LocalExecutor:
    """Everything in this process, one thing after another, without Ray.

    Args:
        accumulation_steps: Equal parts in which a training goes through a batch.
    """

    def __init__(self, accumulation_steps: int = 1) -> None:
        self._accumulation_steps = accumulation_steps

    def map_jobs(
        self, job: Callable[[Item, Executor], Output], items: Sequence[Item], *, label: str = ""
    ) -> list[Output | Exception]:
        """Run one job after another."""
        outcomes: list[Output | Exception] = []
        with Progress(label, total=len(items), unit="run", shown=bool(label)) as progress:
            for item in items:
                try:
                    outcomes.append(job(item, self))
                except Exception as error:
                    outcomes.append(error)
                progress.update(len(outcomes))
        return outcomes

    def fit(
        self,
        task: "TrainingTask",
        folder: Path,
        *,
        report: "Callable[[Record], None] | None" = None,
    ) -> "TrainingResult":
        """Train in this process, continuing from ``folder/checkpoint.pt`` if there is one."""
        # Only here, because it imports torch.
        from bnce_dist.training import local

        return local.fit(task, folder, accumulation_steps=self._accumulation_steps, report=report)

    def map_shards(
        self,
        make_worker: Callable[[], ShardWorker],
        num_shards: int,
        folder: Path,
        *,
        metadata: DatasetMetadata,
        label: str,
    ) -> ShardedDataset:
        """Write the missing shards one after another."""
        missing = missing_shards(folder, num_shards, metadata)
        if missing:
            worker = make_worker()
            done = num_shards - len(missing)
            with Progress(label, total=num_shards, unit="shard", done=done) as progress:
                for count, index in enumerate(missing, start=done + 1):
                    with listening(progress.within(count - 1)):
                        arrays = worker(index)
                    write_shard(folder, index, arrays, metadata)
                    progress.update(count)
        return ShardedDataset.finish(folder, num_shards, metadata)

    def release(self) -> None:
        """Nothing is kept."""
