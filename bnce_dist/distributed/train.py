"""Training with Ray Train: the loop of `training`, data-parallel over many workers."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer, get_device
from ray.util import placement_group_table

from bnce_dist.core.allocator import keep_freed_memory
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import not_writable
from bnce_dist.distributed.cluster import (
    DEATHS,
    SURVIVES,
    num_gpus,
    reason_of_death,
    require_workers,
    waited_for,
)
from bnce_dist.distributed.introduction import Introduction
from bnce_dist.distributed.parallel import parallelise
from bnce_dist.distributed.relay import RecordRelay
from bnce_dist.distributed.waiting import Waiting
from bnce_dist.pipeline.cluster import (
    DATA_PARALLEL,
    ONE_CORE,
    Parallelism,
    WorkerResources,
)
from bnce_dist.training.checkpoint import (
    CHECKPOINT,
    RUN_PREFIX,
    keep_last,
    load_checkpoint,
    load_resumable,
    save_checkpoint,
)
from bnce_dist.training.divergence import TrainingDiverged
from bnce_dist.training.loop import (
    per_rank_batch_size,
    require_samples_for_all,
    train,
)
from bnce_dist.training.progress import TrainingDisplay
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

POLL_SECONDS = 0.5
# How long an interrupted call waits for its workers to end.
STOP_SECONDS = 20.0
# How often Ray Train looks after its workers; a checkpoint counts only once it has looked. Every
# step in between would wait if ranks asked `get_all_reported_checkpoints` until it counts.
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
    resources: WorkerResources = ONE_CORE,
    report: Callable[[Record], None] | None = None,
    max_failures: int = 3,
) -> TrainingResult:
    """Train on ``num_workers`` workers, going on from the last checkpoint in ``folder``.

    A worker that dies takes its group with it; the group starts again from the last checkpoint.
    An interrupt ends the group before it reaches the caller.
    An earlier call may have had another number of workers or another strategy.

    Args:
        task: What to train.
        folder: The task's own folder, on storage that all nodes share.
        num_workers: Ranks, each with one GPU if the cluster has any, else one core.
        min_workers: Makes the group elastic: it goes on with as few ranks as this when nodes
            are lost, and grows back to ``num_workers`` when there is room.
        parallelism: How they share the model.
        resources: What a rank takes of its node, and which nodes will do.
        report: Called in this thread with every new record of the loss history.
        max_failures: How often the group may be started again.

    Raises: InputError: too many or no workers, a batch that does not divide among a fixed number
        of them or leaves one without samples, a strategy that cannot train this, unusable data
        or checkpoint, a full disk, or a loss that is not finite.
    """
    started = time.monotonic()
    os.environ.setdefault(*COMMIT_INTERVAL)
    require_workers(min_workers or num_workers, resources)
    parallelism.require_supported(task.create_objective, task.settings)
    _require_batch(task, num_workers, parallelism, elastic=min_workers is not None)
    folder = Path(folder).resolve()
    path = folder / CHECKPOINT
    keep_last(folder)
    done = load_resumable(path, task)["step"] if path.exists() else 0
    if done < task.settings.num_steps:
        relay = ray.remote(RecordRelay).options(num_cpus=0, **SURVIVES).remote()
        # A new one, so that nothing is left to what an earlier call, which may have been killed,
        # noted there: under one stable name Ray would go on from its own notes of the newest
        # checkpoint, not from the highest step that can be read.
        run_folder = folder / f"{RUN_PREFIX}_{uuid.uuid4().hex}"
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "task": replace(task, data_path=task.data_path.resolve()),
                "parallelism": parallelism,
                "run_folder": run_folder,
                "relay": relay,
            },
            scaling_config=_scaling_config(num_workers, min_workers, resources),
            run_config=_run_config(run_folder, max_failures, relay),
        )
        waiting = Waiting(f"train {task.metadata.stage}", *waited_for(resources))
        with TrainingDisplay(task, done, report) as display:
            try:
                _follow(trainer, relay, display, partial(_look, waiting, num_workers))
            except ray.train.WorkerGroupError as error:
                raise _failure(error, task, max_failures) from error
            except ray.train.ControllerError as error:
                # A worker that dies while the leader talks to it is the leader's failure to Ray.
                if isinstance(error.controller_failure, DEATHS):
                    when = "while its group was set up"
                    raise _death(error.controller_failure, task, when) from error
                raise
            keep_last(folder)
            for record in load_checkpoint(path)["history"]:
                display.show(record)  # if the relay lost it
    return TrainingResult(path, load_checkpoint(path)["history"], time.monotonic() - started)


def train_worker(config: dict[str, Any]) -> InputError | None:
    """Train as one rank of the group.

    Args:
        config: ``task``; ``parallelism``; ``relay`` for the loss history; ``run_folder``
            inside the task's own.

    Returns: Why training could not go on, if so; the first rank's counts.
    """
    keep_freed_memory()
    task: TrainingTask = config["task"]
    parallelism: Parallelism = config["parallelism"]
    relay: ActorHandle = config["relay"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    relay.begin.remote(rank)

    def report(record: Record) -> None:
        if rank == 0:
            relay.put.remote(record)

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
            save=partial(_save_together, config=config, rank=rank),
        )
    # Returned, not raised: all ranks stop at this step, and would again after a restart.
    except TrainingDiverged as error:
        return error
    except NotSaved as error:
        return error.reason
    return None


class NotSaved(Exception):
    """A checkpoint could not be written; the first rank knows the reason."""

    def __init__(self, reason: InputError | None) -> None:
        super().__init__(reason)
        self.reason = reason


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


def _scaling_config(
    num_workers: int, min_workers: int | None, resources: WorkerResources
) -> ray.train.ScalingConfig:
    has_gpus = num_gpus(resources) > 0
    if min_workers is not None:
        os.environ.setdefault(*REGROUP_TIMEOUT)
    return ray.train.ScalingConfig(
        num_workers=num_workers if min_workers is None else (min_workers, num_workers),
        use_gpu=has_gpus,
        resources_per_worker={"CPU": resources.cpus_per_worker, "GPU": int(has_gpus)},
        accelerator_type=resources.accelerator_type,
        label_selector=resources.node_labels or None,
        elastic_resize_monitor_interval_s=GROW_INTERVAL_SECONDS,
    )


def _run_config(run_folder: Path, max_failures: int, relay: ActorHandle) -> ray.train.RunConfig:
    return ray.train.RunConfig(
        name=run_folder.name,
        storage_path=str(run_folder.parent),
        # A node that is taken away is no failure to Ray. `get_preemption_info` could save before,
        # but is a barrier of all ranks at every step, to win less than one checkpoint_interval.
        failure_config=ray.train.FailureConfig(max_failures=max_failures),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        callbacks=[Introduction(relay)],
        # No worker_runtime_env: which interface GLOO and NCCL use differs from node to node, so it
        # is set where Ray is started (cluster/), or for a whole job by its runtime environment.
    )


def _look(waiting: Waiting, num_workers: int, relay: ActorHandle) -> None:
    """Say what the group waits for; with its place reserved, its processes are on their way."""
    missing = num_workers - ray.get(relay.begun.remote())
    states = {group["state"] for group in placement_group_table().values()} if missing else set()
    waiting.look(missing if "PENDING" in states else 0)


def _failure(error: ray.train.WorkerGroupError, task: TrainingTask, max_failures: int) -> Exception:
    """Return the user's mistake behind the failure of a group, or that its workers died."""
    failures = list(error.worker_failures.values())
    for failure in failures:
        if isinstance(failure, InputError):
            return failure
    # Of a worker that does not answer, Ray Train tells what it heard instead.
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures]
    died = next((cause for cause in causes if isinstance(cause, DEATHS)), None)
    return error if died is None else _death(died, task, f"after {max_failures} restarts")


def _death(died: BaseException, task: TrainingTask, when: str) -> InputError:
    return InputError(
        f"training of the {task.metadata.stage}",
        expected="workers that live",
        got=f"one that died, {when}: {reason_of_death(died)}",
        remedy="free memory on the nodes, or look at Ray's logs; the same command goes on from "
        "the last checkpoint",
    )


def _follow(
    trainer: TorchTrainer,
    relay: ActorHandle,
    display: TrainingDisplay,
    look: Callable[[ActorHandle], None],
) -> None:
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
    try:
        while not future.done():
            wait([future], timeout=POLL_SECONDS)
            for record in ray.get(relay.take.remote()):
                display.show(record)
            look(relay)
    except BaseException:  # Above all Ctrl-C, which would leave the group's workers at work.
        _stop(relay, future)
        raise
    try:
        result = future.result()
    except ray.train.ControllerError as error:
        # The leader lives on, and with it the cores that it reserved.
        leader = ray.get(relay.leader.remote())
        if leader is not None:
            ray.kill(leader)
        if isinstance(error.controller_failure, OSError):
            folder = trainer.run_config.storage_path
            raise not_writable(folder, error.controller_failure) from None
        raise
    if result.return_value is not None:
        raise result.return_value


def _stop(relay: ActorHandle, future: Future[Any]) -> None:
    """End the group, so that its cores and its folder are free for the next call."""
    deadline = time.monotonic() + STOP_SECONDS
    leader = None
    while leader is None and not future.done() and time.monotonic() < deadline:
        leader = ray.get(relay.leader.remote())
        wait([future], timeout=POLL_SECONDS)
    if leader is not None:
        # It answers by ending itself.
        with contextlib.suppress(RayError):
            ray.get(leader.abort.remote(), timeout=STOP_SECONDS)
        wait([future], timeout=STOP_SECONDS)


def _save_together(content: dict[str, Any], *, config: dict[str, Any], rank: int) -> None:
    """Write a checkpoint by the first rank and tell Ray Train about it by all."""
    directory = config["run_folder"] / f"step_{content['step']:08d}"
    reason = None
    if rank == 0:
        try:
            save_checkpoint(directory / CHECKPOINT, content, config["task"])
        except InputError as error:
            reason = error
    if broadcast_from_rank_zero(reason is not None):
        raise NotSaved(reason)
    ray.train.report(
        {"step": content["step"]},
        ray.train.Checkpoint.from_directory(directory) if rank == 0 else None,
        # It is where it belongs already: whole, and written once.
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
    )


def _load_last(config: dict[str, Any]) -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    path = Path(checkpoint.path if checkpoint else config["run_folder"].parent) / CHECKPOINT
    return load_resumable(path, config["task"]) if path.exists() else None
