"""Training with Ray Train: the loop of `training`, data-parallel over many workers."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from ray.train.torch import TorchTrainer, get_device

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path
from bnce_dist.distributed.cluster import SURVIVES, num_gpus, require_workers
from bnce_dist.distributed.parallel import parallelise
from bnce_dist.distributed.parallelism import DATA_PARALLEL, Parallelism
from bnce_dist.training.checkpoint import load_checkpoint, load_resumable, save_checkpoint
from bnce_dist.training.loop import (
    TrainingDiverged,
    per_rank_batch_size,
    require_samples_for_all,
    train,
)
from bnce_dist.training.progress import TrainingDisplay
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

CHECKPOINT = "checkpoint.pt"
# Ray Train's own folder inside the task's: a run of the same name goes on where it stopped.
RUN_NAME = "ray_train"
POLL_SECONDS = 0.5
# How often Ray Train looks after its workers; a checkpoint counts only once it has looked.
COMMIT_INTERVAL = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# How long an elastic group that lost a node asks for its old size before it takes what is there.
REGROUP_TIMEOUT = ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
# How often it looks for room to grow; growing costs what was done since the last checkpoint.
GROW_INTERVAL_SECONDS = 60.0


def fit(
    task: TrainingTask,
    folder: str | Path,
    *,
    num_workers: int,
    min_workers: int | None = None,
    parallelism: Parallelism = DATA_PARALLEL,
    report: Callable[[Record], None] | None = None,
    max_failures: int = 3,
) -> TrainingResult:
    """Train on ``num_workers`` workers, going on from the last checkpoint in ``folder``.

    A worker that dies takes its group with it; the group starts again from the last checkpoint.
    An earlier call may have had another number of workers or another strategy.

    Args:
        task: What to train.
        folder: The task's own folder, on storage that all nodes share.
        num_workers: Ranks, each with one GPU if the cluster has any, else one core.
        min_workers: Makes the group elastic: it goes on with as few ranks as this when nodes
            are lost, and grows back to ``num_workers`` when there is room.
        parallelism: How they share the model.
        report: Called in this thread with every new record of the loss history.
        max_failures: How often the group may be started again.

    Raises: InputError: too many or no workers, a batch that does not divide among a fixed number
        of them or leaves one without samples, a strategy that cannot train this, unusable data
        or checkpoint, or a loss that is not finite.
    """
    started = time.monotonic()
    os.environ.setdefault(*COMMIT_INTERVAL)
    require_workers(min_workers or num_workers)
    parallelism.require_one_model(num_workers)
    parallelism.require_supported(task.create_objective, task.settings)
    _require_batch(task, num_workers, parallelism, elastic=min_workers is not None)
    folder = Path(folder).resolve()
    path = folder / CHECKPOINT
    last = path if path.exists() else _last_committed(folder)
    done = load_resumable(last, task)["step"] if last else 0
    if last != path or done < task.settings.num_steps:
        relay = ray.remote(RecordRelay).options(num_cpus=0, **SURVIVES).remote()
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "task": replace(task, data_path=task.data_path.resolve()),
                "parallelism": parallelism,
                "start": last,
                "relay": relay,
            },
            scaling_config=_scaling_config(num_workers, min_workers),
            run_config=_run_config(folder, max_failures),
        )
        with TrainingDisplay(task, done, report) as display:
            result = _follow(trainer, relay, display)
            _publish(result, path)
            for record in load_checkpoint(path)["history"]:
                display.show(record)  # if the relay lost it
    return TrainingResult(path, load_checkpoint(path)["history"], time.monotonic() - started)


def train_worker(config: dict[str, Any]) -> InputError | None:
    """Train as one rank of the group.

    Args:
        config: ``task``; ``parallelism``; ``relay`` for the loss history; ``start``, the
            checkpoint to begin from where this run has none of its own.

    Returns: What made training diverge, if anything.
    """
    task: TrainingTask = config["task"]
    parallelism: Parallelism = config["parallelism"]
    relay: ActorHandle = config["relay"]
    context = ray.train.get_context()
    rank = context.get_world_rank()

    def report(record: Record) -> None:
        if rank == 0:
            relay.put.remote(record)

    def save(content: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = None
            if rank == 0:
                save_checkpoint(Path(directory) / CHECKPOINT, content, task)
                checkpoint = ray.train.Checkpoint.from_directory(directory)
            name = f"step_{content['step']:08d}"
            ray.train.report({"step": content["step"]}, checkpoint, checkpoint_dir_name=name)

    try:
        train(
            task.create_objective().to(get_device()),
            task.open_data(),
            task.settings,
            rank=rank,
            world_size=context.get_world_size(),
            accumulation_steps=parallelism.accumulation_steps,
            parallelise=partial(parallelise, parallelism=parallelism),
            resume=_load_last(config),
            validate=task.validate,
            report=report,
            save=save,
        )
    except TrainingDiverged as error:
        # Returned, not raised: all ranks stop at this step, and would again after a restart.
        return error
    return None


class RecordRelay:
    """Carries records of the loss history from the first rank to the driver."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def put(self, record: Record) -> None:
        """Take a record in."""
        self._records.append(record)

    def take(self) -> list[Record]:
        """Return the records that came in since the last call."""
        records, self._records = self._records, []
        return records


def _require_batch(
    task: TrainingTask, num_workers: int, parallelism: Parallelism, *, elastic: bool
) -> None:
    parts, num_samples = parallelism.accumulation_steps, len(task.open_data())
    if elastic:
        batch_size = min(task.settings.global_batch_size, num_samples)
        require_samples_for_all(batch_size, num_workers * parts)
    else:
        per_rank_batch_size(
            task.settings, num_workers, num_samples=num_samples, accumulation_steps=parts
        )


def _scaling_config(num_workers: int, min_workers: int | None) -> ray.train.ScalingConfig:
    use_gpu = num_gpus() > 0
    if min_workers is None:
        return ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu)
    os.environ.setdefault(*REGROUP_TIMEOUT)
    return ray.train.ScalingConfig(
        num_workers=(min_workers, num_workers),
        use_gpu=use_gpu,
        elastic_resize_monitor_interval_s=GROW_INTERVAL_SECONDS,
    )


def _run_config(folder: Path, max_failures: int) -> ray.train.RunConfig:
    return ray.train.RunConfig(
        name=RUN_NAME,
        storage_path=str(folder),
        failure_config=ray.train.FailureConfig(max_failures=max_failures),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
    )


def _follow(
    trainer: TorchTrainer, relay: ActorHandle, display: TrainingDisplay
) -> ray.train.Result:
    """Run the trainer beside this thread, which shows what comes in.

    In the main thread ``fit`` would block the display and replace the handler of Ctrl-C.
    """
    future: Future[ray.train.Result] = Future()

    def run() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not future.done():
        wait([future], timeout=POLL_SECONDS)
        for record in ray.get(relay.take.remote()):
            display.show(record)
    try:
        result = future.result()
    except ray.train.WorkerGroupError as error:
        failures = error.worker_failures.values()
        raise next((e for e in failures if isinstance(e, InputError)), error) from None
    if result.return_value is not None:
        raise result.return_value
    return result


def _last_committed(folder: Path) -> Path | None:
    """Return the last checkpoint that an earlier call left in Ray Train's folder."""
    try:
        checkpoint = ray.train.Result.from_path(folder / RUN_NAME).checkpoint
    except RuntimeError:  # no such folder, or it ended before its first checkpoint
        return None
    return Path(checkpoint.path) / CHECKPOINT if checkpoint else None


def _load_last(config: dict[str, Any]) -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            return load_resumable(Path(directory) / CHECKPOINT, config["task"])
    return load_resumable(config["start"], config["task"]) if config["start"] else None


def _publish(result: ray.train.Result, path: Path) -> None:
    """Put the last checkpoint where every executor leaves it."""
    with atomic_path(path) as temporary:
        shutil.copyfile(Path(result.checkpoint.path) / CHECKPOINT, temporary)
