"""A pool of actors that fills a folder with shards, whatever happens to the actors."""

import contextlib
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from bnce_dist.core.allocator import keep_freed_memory
from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import (
    DatasetMetadata,
    ShardedDataset,
    ShardWorker,
    missing_shards,
    write_shard,
)
from bnce_dist.distributed.cluster import (
    ANYWHERE,
    num_gpus,
    one_line_errors,
    owned_devices,
    ray_options,
    reason_of_death,
    waited_for,
)
from bnce_dist.distributed.waiting import Waiting
from bnce_dist.pipeline.cluster import ONE_CORE, WorkerResources
from bnce_dist.training.progress import Listener, Progress, listening

MAX_TRIES = 5
"""Processes that may die with one shard before it is given up."""
POLL_SECONDS = 1.0
PART_INTERVAL_SECONDS = 2.0


class ShardActor:
    """Builds its worker once per data set and writes one shard per call.

    A call that dies with its process is run again on a new one. That is safe: a shard is a
    function of its index, and writing it is atomic.
    """

    def __init__(self) -> None:
        keep_freed_memory()
        self._worker: ShardWorker | None = None
        self._dataset: str | None = None

    def begin(self) -> None:
        """Answer as soon as there is a process."""

    @owned_devices()
    def write(
        self,
        make_worker: Callable[[], ShardWorker],
        dataset: str,
        folder: Path,
        metadata: DatasetMetadata,
        index: int,
    ) -> None:
        """Compute and write the shard ``index`` of a data set."""
        if self._worker is None or self._dataset != dataset:
            self._worker = None  # so that two never share the memory
            self._worker, self._dataset = make_worker(), dataset
        part = _part_path(folder, index)
        try:
            with listening(_writer_of_parts(part)):
                arrays = self._worker(index)
        finally:
            part.unlink(missing_ok=True)
        write_shard(folder, index, arrays, metadata)


class ActorPool:
    """Actors that stay between data sets, so that a process and its imports are paid for once.

    Args:
        resources: What each actor takes; a share of a GPU if the nodes to be used have any.
    """

    def __init__(self, resources: WorkerResources = ONE_CORE) -> None:
        has_gpus = num_gpus(resources) > 0
        self.waited_for = waited_for(resources)
        self._type = ray.remote(ShardActor).options(
            **ray_options(resources, 1 / resources.workers_per_gpu if has_gpus else 0),
            # Of a pool that lives for days; what is finite is how many of them one shard may cost.
            max_restarts=-1,
            max_task_retries=MAX_TRIES - 1,
            **ANYWHERE,
        )
        self._idle: list[Any] = []

    def take(self, count: int) -> list[Any]:
        """Return so many actors, new ones where too few are idle."""
        taken = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        return taken + [self._type.remote() for _ in range(count - len(taken))]

    def give_back(self, actors: Iterable[Any]) -> None:
        """Keep actors that have nothing to do for the next data set."""
        self._idle.extend(actors)

    def close(self) -> None:
        """End the idle actors, which frees their cores."""
        while self._idle:
            ray.kill(self._idle.pop())


def map_shards(
    make_worker: Callable[[], ShardWorker],
    num_shards: int,
    folder: str | Path,
    *,
    metadata: DatasetMetadata,
    label: str,
    num_actors: int,
    pool: ActorPool | None = None,
) -> ShardedDataset:
    """Write the missing shards ``0 .. num_shards - 1`` of a folder and open the data set.

    Each actor holds one shard at a time, so memory does not grow with their number.

    Args:
        make_worker: Builds what computes shards, once per actor.
        num_shards: How many shards the data set has.
        folder: On storage that all nodes share.
        metadata: What the arrays mean and what decides them.
        label: Of the progress bar.
        num_actors: At most so many work at once.
        pool: Where actors come from and stay; without one they end with the data set.

    Raises: InputError: a shard belongs to another data set, cannot be written, or ended the
        process that was at it every time, and all others are written; and what ``make_worker`` or
        the worker raises.
    """
    folder = Path(folder).resolve()
    missing = missing_shards(folder, num_shards, metadata)
    if not missing:
        return ShardedDataset.finish(folder, num_shards, metadata)
    done = num_shards - len(missing)
    folder.mkdir(parents=True, exist_ok=True)  # What says how far a shard is lies in it, too.
    source = pool or ActorPool()
    with one_line_errors():
        writing = _Writing(source, make_worker, folder, metadata, missing, num_actors)
    waiting = Waiting(label, *source.waited_for)
    try:
        with (
            Progress(label, total=num_shards, unit="shard", done=done) as progress,
            one_line_errors(),
        ):
            shown = None
            for running in writing.run():
                waiting.look(writing.num_without_process)
                parts = _read_parts(folder, running)
                finished = num_shards - writing.num_left + sum(done for done, _ in parts.values())
                notes = [f"shard {index}: {note}" for index, (_, note) in parts.items()]
                if (now := (finished, "; ".join(notes[:2]))) != shown:
                    progress.update(*now)
                    shown = now
    finally:
        writing.close()
        if pool is None:
            source.close()
        for part in folder.glob(_PART_FILES):
            part.unlink(missing_ok=True)  # of an actor that was killed
    for index, reason in writing.failed.items():
        raise InputError(
            f"shard {index} of {folder}",
            expected="a process that lives until it is written",
            got=f"{MAX_TRIES} that died: {reason}",
            remedy=f"free memory on the nodes, or look at Ray's logs; the other "
            f"{num_shards - len(writing.failed)} shards are kept, and the same command tries again",
        )
    return ShardedDataset.finish(folder, num_shards, metadata)


class _Writing:
    """The actors of one data set, which take the next shard when they are done with one."""

    def __init__(
        self,
        pool: ActorPool,
        make_worker: Callable[[], ShardWorker],
        folder: Path,
        metadata: DatasetMetadata,
        indices: list[int],
        num_actors: int,
    ) -> None:
        self.failed: dict[int, str] = {}
        self._pool, self._indices = pool, deque(indices)
        # By reference: every actor reads it from the store of its node.
        self._arguments = (ray.put(make_worker), uuid.uuid4().hex, folder, metadata)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[int, Any]] = {}
        self._take(min(num_actors, len(indices)))

    @property
    def num_left(self) -> int:
        """How many shards are not written."""
        return len(self._indices) + len(self._running) + len(self.failed)

    @property
    def num_without_process(self) -> int:
        """How many actors wait for their cores."""
        return len(self._starting)

    def run(self) -> Iterator[list[int]]:
        """Write all shards, and yield which ones are being written whenever that may change."""
        while self._indices or self._running:
            while self._idle and self._indices:
                actor, index = self._idle.pop(), self._indices.popleft()
                self._running[actor.write.remote(*self._arguments, index)] = (index, actor)
            ended, _ = ray.wait([*self._running, *self._starting], timeout=POLL_SECONDS)
            for reference in ended:
                if reference in self._starting:
                    self._idle.append(self._starting.pop(reference))
                else:
                    self._end(reference)
            yield [index for index, _ in self._running.values()]

    def close(self) -> None:
        """Return actors that have nothing to do to the pool, and end those that are not done."""
        self._pool.give_back([*self._starting.values(), *self._idle])
        for _, actor in self._running.values():
            ray.kill(actor)

    def _take(self, count: int) -> None:
        """Ask for actors. A shard never waits for one whose cores somebody else may keep."""
        self._starting |= {actor.begin.remote(): actor for actor in self._pool.take(count)}

    def _end(self, reference: Any) -> None:
        """Note that a shard is written, or has cost so many processes that it is given up."""
        index, actor = self._running.pop(reference)
        self._idle.append(actor)  # After an error of the work too, for `close` to give back.
        try:
            ray.get(reference)
        except (RayActorError, OutOfMemoryError) as error:
            self.failed[index] = reason_of_death(error)
            ray.kill(self._idle.pop())
            self._take(1)


_PART_FILES = ".part_*.json"


def _part_path(folder: Path, index: int) -> Path:
    return folder / _PART_FILES.replace("*", f"{index:05d}")


def _writer_of_parts(path: Path) -> Listener:
    """Return what tells the driver by a small file how far a shard is."""
    last = time.monotonic()

    def write(fraction: float, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PART_INTERVAL_SECONDS:
            last = time.monotonic()
            # The work does not depend on being watched.
            with contextlib.suppress(OSError):
                path.write_text(json.dumps([fraction, note]))

    return write


def _read_parts(folder: Path, indices: list[int]) -> dict[int, tuple[float, str]]:
    parts = {}
    for index in sorted(indices):
        with contextlib.suppress(OSError, ValueError):
            fraction, note = json.loads(_part_path(folder, index).read_text())
            parts[index] = (fraction, note)
    return parts
