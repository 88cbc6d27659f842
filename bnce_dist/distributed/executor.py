"""The executor of `pipeline` on a Ray cluster."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, ShardWorker
from bnce_dist.distributed.cluster import (
    available_actors,
    available_workers,
    ensure_ray,
    num_gpus,
    ray_options,
    require_some_gpus,
    require_workers,
)
from bnce_dist.distributed.pool import ActorPool, map_shards
from bnce_dist.distributed.tasks import map_to_outcomes
from bnce_dist.pipeline.cluster import (
    DATA_PARALLEL,
    ONE_CORE,
    Parallelism,
    WorkerResources,
)
from bnce_dist.pipeline.executor import Executor, LocalExecutor

if TYPE_CHECKING:  # Importing torch takes seconds in every process that runs a job.
    from bnce_dist.training.task import Record, TrainingResult, TrainingTask

Item = TypeVar("Item")
Output = TypeVar("Output")


class RayExecutor:
    """Tasks, Ray Train and actor pools; gives what ``LocalExecutor`` gives.

    Args:
        num_workers: Most ranks of a training and actors of a pool; by default all that the
            cluster holds. A training of a fixed number takes the largest that divides its batch.
        parallelism: How the ranks of a training share the model.
        min_workers: Ranks that a training may shrink to when nodes are lost; it grows back.
        require_gpus: Refuse a cluster without GPUs.
        resources: What a worker takes of its node, and which nodes will do.
        max_failures: How often a training whose worker died is started again.

    Raises: InputError: no workers, more than the cluster holds, no GPUs where they are required,
        or no cluster to be reached.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        parallelism: Parallelism = DATA_PARALLEL,
        *,
        min_workers: int | None = None,
        require_gpus: bool = False,
        resources: WorkerResources = ONE_CORE,
        max_failures: int = 3,
    ) -> None:
        if num_workers is not None and num_workers < 1:
            raise InputError(
                "number of workers",
                expected="at least 1",
                got=num_workers,
                remedy="ask for one worker or more",
            )
        ensure_ray()
        if require_gpus:
            require_some_gpus()
        require_workers(min_workers or num_workers or 1, resources)
        self._num_workers, self._min_workers = num_workers, min_workers
        self._parallelism, self._resources = parallelism, resources
        self._max_failures = max_failures
        self._pool: ActorPool | None = None

    def map_jobs(
        self, job: Callable[[Item, Executor], Output], items: Sequence[Item], *, label: str = ""
    ) -> list[Output | Exception]:
        """Deal the workers to the jobs: several to each, or jobs that wait for a free one."""
        self.release()
        total = self._num_workers or available_workers(self._resources)
        share = max(total // max(len(items), 1), 1)
        alone = share == 1 and not num_gpus(self._resources)
        return map_to_outcomes(
            partial(_run_job, job, self._local() if alone else self._of_share(share)),
            items,
            # What leads several workers only waits for them.
            options=ray_options(self._resources, 0) if alone else {"num_cpus": 0},
            max_concurrent=total // share,
            label=label,
        )

    def _local(self) -> Callable[[], Executor]:
        return partial(LocalExecutor, self._parallelism.accumulation_steps)

    def _of_share(self, num_workers: int) -> Callable[[], Executor]:
        """Return what makes the executor of a job that has so many of the workers."""
        return partial(
            RayExecutor,
            num_workers,
            self._parallelism,
            min_workers=min(num_workers, self._min_workers) if self._min_workers else None,
            resources=self._resources,
            max_failures=self._max_failures,
        )

    def fit(
        self,
        task: "TrainingTask",
        folder: Path,
        *,
        report: "Callable[[Record], None] | None" = None,
    ) -> "TrainingResult":
        """Train with Ray Train, continuing from the last checkpoint in ``folder``."""
        # Only here, because importing it takes a second in every process that runs a job.
        from bnce_dist.distributed.train import fit

        self.release()
        most = self._num_workers or available_workers(self._resources)
        batch = min(task.settings.global_batch_size, len(task.open_data()))
        parts = self._parallelism.accumulation_steps
        dividing = (n for n in range(1, most + 1) if batch % (n * parts) == 0)
        return fit(
            task,
            folder,
            num_workers=most if self._min_workers else max(dividing, default=1),
            min_workers=self._min_workers,
            parallelism=self._parallelism,
            resources=self._resources,
            max_failures=self._max_failures,
            report=report,
        )

    def map_shards(
        self,
        make_worker: Callable[[], ShardWorker],
        num_shards: int,
        folder: Path,
        *,
        metadata: DatasetMetadata,
        label: str,
    ) -> ShardedDataset:
        """Write the missing shards with a pool of actors, which stay for the next data set."""
        if self._pool is None:
            self._pool = ActorPool(self._resources)
        return map_shards(
            make_worker,
            num_shards,
            folder,
            metadata=metadata,
            label=label,
            # Where there is no node at the moment, an actor that waits calls for one.
            num_actors=self._num_workers or max(available_actors(self._resources), 1),
            pool=self._pool,
        )

    def release(self) -> None:
        """End the actors that stayed: their cores are needed, or the stage is over."""
        if self._pool is not None:
            self._pool.close()


def _run_job(
    job: Callable[[Item, Executor], Output], make_executor: Callable[[], Executor], item: Item
) -> Output:
    """Run a job on this process alone, or on workers of its own."""
    return job(item, make_executor())
