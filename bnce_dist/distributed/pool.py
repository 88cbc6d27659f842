"""A pool of actors that fills a folder with shards, whatever happens to the actors."""

from collections.abc import Callable
from pathlib import Path

import ray
from ray.util import ActorPool

from bnce_dist.data.shards import (
    DatasetMetadata,
    ShardedDataset,
    ShardWorker,
    missing_shards,
    write_shard,
)
from bnce_dist.distributed.cluster import ANYWHERE, SURVIVES, one_line_errors
from bnce_dist.training.progress import Progress


class ShardActor:
    """Builds its worker once and writes one shard per call.

    A call that dies with its process is run again on a new one. That is safe: a shard is a
    function of its index, and writing it is atomic.
    """

    def __init__(self, folder: Path, metadata: DatasetMetadata) -> None:
        self._folder, self._metadata = folder, metadata
        self._worker: ShardWorker | None = None

    def write(self, make_worker: Callable[[], ShardWorker], index: int) -> None:
        """Compute and write the shard ``index``."""
        # Not in __init__: Ray would report an error there as a death of the actor, and could not
        # start the actor again once a large argument has left the object store.
        if self._worker is None:
            self._worker = make_worker()
        write_shard(self._folder, index, self._worker(index), self._metadata)


def map_shards(
    make_worker: Callable[[], ShardWorker],
    num_shards: int,
    folder: str | Path,
    *,
    metadata: DatasetMetadata,
    label: str,
    num_actors: int,
    num_gpus_per_actor: float = 0,
) -> ShardedDataset:
    """Write the missing shards ``0 .. num_shards - 1`` of a folder and open the data set.

    Each actor holds one shard at a time, so memory does not grow with their number.

    Args:
        make_worker: Builds what computes shards, once per actor.
        num_shards: How many shards the data set has.
        folder: On storage that all nodes share.
        metadata: What the arrays mean and what decides them.
        label: Of the progress bar.
        num_actors: At most so many work at once, each on one core.
        num_gpus_per_actor: GPUs each actor takes.

    Raises: InputError: a shard belongs to another data set, or cannot be written; and what
        ``make_worker`` or the worker raises.
    """
    folder = Path(folder).resolve()
    missing = missing_shards(folder, num_shards, metadata)
    actor_type = ray.remote(ShardActor).options(
        num_cpus=1, num_gpus=num_gpus_per_actor, **SURVIVES, **ANYWHERE
    )
    actors = [actor_type.remote(folder, metadata) for _ in range(min(num_actors, len(missing)))]
    done = num_shards - len(missing)
    try:
        with (
            Progress(label, total=num_shards, unit="shard", done=done) as progress,
            one_line_errors(),
        ):
            factory = ray.put(make_worker)
            written = ActorPool(actors).map_unordered(
                lambda a, i: a.write.remote(factory, i), missing
            )
            for count, _ in enumerate(written, start=done + 1):
                progress.update(count)
    finally:
        for actor in actors:
            ray.kill(actor)
    return ShardedDataset.finish(folder, num_shards, metadata)
