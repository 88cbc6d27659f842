"""The Ray cluster this process works with: the one it belongs to, or one of its own."""

import contextlib
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import (
    NodeDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from bnce_dist.core.errors import InputError
from bnce_dist.core.ownership import without_gpu
from bnce_dist.distributed.address import cluster_address, refused, require_answer
from bnce_dist.pipeline.cluster import ONE_CORE, WorkerResources

logger = logging.getLogger(__name__)

SURVIVES = {"max_restarts": -1, "max_task_retries": -1}
"""Options of an actor that is started again when it dies, with the calls it had not finished."""

DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)
"""What Ray raises when a process has died more often than its work is tried again."""

ANYWHERE = {"scheduling_strategy": "DEFAULT"}
"""Options of what takes its cores from the whole cluster; else Tune confines it to its trial's."""

# Settings that decide how many workers there is room for.
_COUNTED = ("cpus_per_worker", "accelerator_type", "node_labels")


def ensure_ray(num_cpus: int | None = None, *, dashboard: bool = False) -> None:
    """Connect to the cluster named by ``RAY_ADDRESS``, else start a local one.

    ``ray job submit`` sets the address, so a job runs on the cluster it was submitted to.
    Nothing happens where Ray is connected already. Ray gives every worker as many threads
    (``OMP_NUM_THREADS``) as cores.

    Args:
        num_cpus: Cores of a local cluster; by default what the machine has.
        dashboard: Whether a local cluster gets Ray's dashboard.

    Raises: InputError: the named cluster cannot be reached or refuses this client, or none can
        be started here.
    """
    if ray.is_initialized():
        return
    # Every remote error reaches the caller; a second copy on the terminal only hides it.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # What workers print stays in Ray's own log files.
    quiet = {"logging_level": "error", "log_to_driver": False}
    address = cluster_address(os.environ.get("RAY_ADDRESS"))
    try:
        if address is None:
            _start(num_cpus=num_cpus, include_dashboard=dashboard, **quiet)
        else:
            require_answer(address)
            _init(address=address, **quiet)
    except InputError:
        raise
    except Exception as error:  # Ray raises whatever its parts meet.
        ray.shutdown()  # what had started
        raise (_not_started(error) if address is None else _not_joined(address, error)) from error


def _not_started(error: Exception) -> InputError:
    """Return what to tell a user about a cluster that could not be started on this machine."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses
    if "AF_UNIX" in str(error):
        return InputError(
            "temporary folder of Ray",
            expected="a path so short that those of its sockets have at most 107 bytes",
            got=folder,
            remedy="export RAY_TMPDIR=/tmp, or another short path",
        )
    return InputError(
        "Ray on this machine",
        expected=f"a cluster that starts, with its files in {folder}",
        got=_reason(error),
        remedy="look there, or try again if the machine was busy; RAY_TMPDIR names another "
        "folder, and cluster.executor=local does without Ray",
    )


def _not_joined(address: str, error: Exception) -> InputError:
    """Return what to tell a user about a cluster that does not take this process."""
    if str(error).startswith("Version mismatch"):
        return InputError(
            f"Ray cluster {address} (RAY_ADDRESS)",
            expected=f"ray {ray.__version__} and python {platform.python_version()}, as here",
            got=error,
            remedy="install the same environment on both sides, or use `ray job submit`",
        )
    remedy = "check the address, export RAY_AUTH_MODE=token with the cluster's token"
    return refused(address, _reason(error), remedy)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _start(**options: Any) -> None:
    """Start a cluster here: Ray gives its parts half a minute, a busy machine may need it twice."""
    # Nobody tells this machine that it is going to be taken away; to listen takes a process.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        _init(address="local", **options)
    except Exception as error:  # Ray has no type for it.
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        logger.info("Ray did not start within half a minute: trying once more")
        _init(address="local", **options)


def _init(**options: Any) -> None:
    """Call ``ray.init``, which would replace the caller's SIGTERM handler by an abrupt end."""
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(**options)
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def num_gpus(resources: WorkerResources = ONE_CORE) -> int:
    """Return how many GPUs there are on the nodes that workers may use."""
    return int(sum(node.get("GPU", 0) for node in _usable(resources)))


def available_workers(resources: WorkerResources = ONE_CORE) -> int:
    """Return how many ranks there is room for: one per GPU, or without GPUs per so many cores."""
    return _room(resources, 1)


def available_actors(resources: WorkerResources = ONE_CORE) -> int:
    """Return how many actors there is room for, of which several may share a GPU."""
    return _room(resources, resources.workers_per_gpu)


def _room(resources: WorkerResources, workers_per_gpu: int) -> int:
    nodes, gpus = _usable(resources), num_gpus(resources)
    room = [int(node.get("CPU", 0)) // resources.cpus_per_worker for node in nodes]
    if gpus:
        on_gpus = [int(node.get("GPU", 0)) * workers_per_gpu for node in nodes]
        room = [min(pair) for pair in zip(room, on_gpus, strict=True)]
    return sum(room)


def _usable(resources: WorkerResources) -> list[dict[str, float]]:
    """Return what the nodes hold that have the labels and the kind of GPU that is asked for."""
    kind = f"accelerator_type:{resources.accelerator_type}"
    return [
        node["Resources"]
        for node in ray.nodes()
        if node["Alive"]
        and (resources.accelerator_type is None or kind in node["Resources"])
        and all(
            _is_selected(node["Labels"].get(label), wanted)
            for label, wanted in resources.node_labels.items()
        )
    ]


def _is_selected(value: str | None, wanted: str) -> bool:
    """Return whether Ray takes a node whose label has this value."""
    names = wanted.removeprefix("!")
    listed = names[3:-1].split(",") if names.startswith("in(") else [names]
    return (value in [name.strip() for name in listed]) != wanted.startswith("!")


def ray_options(resources: WorkerResources, num_gpus_per_worker: float) -> dict[str, Any]:
    """Return Ray's options of an actor or a task that is one worker."""
    options: dict[str, Any] = {
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": num_gpus_per_worker,
        "label_selector": resources.node_labels or None,
        "accelerator_type": resources.accelerator_type,
    }
    return {name: value for name, value in options.items() if value is not None}


def require_workers(num_workers: int, resources: WorkerResources = ONE_CORE) -> None:
    """Refuse a number of workers that could never all start.

    Raises: InputError: none, or more than the nodes to be used have room for.
    """
    available = available_workers(resources)
    if not 1 <= num_workers <= available:
        raise InputError(
            "number of workers",
            expected=f"1 to {available}, what the cluster holds{_description(resources)}",
            got=num_workers,
            remedy="ask for fewer or other workers, or join more nodes to the cluster; one that"
            " scales by itself brings them up for"
            f" `bnce preflight --wait 1200 cluster.num_workers={max(num_workers, 1)}`",
        )


def _description(resources: WorkerResources) -> str:
    """Return which of its nodes count, and how much of them a worker takes."""
    asked = resources.model_dump(exclude_defaults=True)
    shown = [f"cluster.{name}={value}" for name, value in asked.items() if name in _COUNTED]
    return f" with {', '.join(shown)}" if shown else ""


def require_some_gpus() -> None:
    """Refuse a cluster without GPUs.

    Raises: InputError: it holds none.
    """
    if not num_gpus():
        raise InputError(
            "GPUs of the cluster (cluster.require_gpus)",
            expected="at least 1",
            got=0,
            remedy="join nodes with GPUs, or set cluster.require_gpus=false to run on cores",
        )


def wait_for_nodes(num_nodes: int, timeout_seconds: float) -> None:
    """Wait until the cluster named by ``RAY_ADDRESS`` is up and so many nodes have joined.

    Args:
        num_nodes: Including the head.
        timeout_seconds: How long to wait.

    Raises: InputError: time is up, and the cluster cannot be reached or lacks nodes.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        in_time = time.monotonic() < deadline
        try:
            ensure_ray()
            joined = sum(node["Alive"] for node in ray.nodes())
            if joined >= num_nodes:
                return
            if not in_time:
                raise InputError(
                    f"nodes of the cluster {os.environ.get('RAY_ADDRESS', '')}",
                    expected=f"{num_nodes} within {timeout_seconds:.0f} s",
                    got=joined,
                    remedy="look at Ray's logs on the nodes that are missing, or wait longer",
                )
        except InputError:
            if not in_time:
                raise
        time.sleep(1)


def waited_for(resources: WorkerResources = ONE_CORE) -> tuple[Literal["CPU", "GPU"], int]:
    """Return what a worker waits for, and how much of it: a GPU where there are any, or cores."""
    return ("GPU", 1) if num_gpus(resources) else ("CPU", resources.cpus_per_worker)


def call_for_workers(
    num_workers: int, timeout_seconds: float, resources: WorkerResources, *, gpus: bool
) -> None:
    """Have a cluster that scales by itself bring up nodes, and wait until it has.

    Whether they came is for `require_workers` to say.

    Args:
        num_workers: How many workers must fit.
        timeout_seconds: How long to wait.
        resources: What a worker takes, and of which nodes.
        gpus: Whether a worker takes a GPU; it does anyway where the cluster has some already.
    """
    gpus = gpus or num_gpus(resources) > 0
    bundle = {"CPU": resources.cpus_per_worker, **({"GPU": 1} if gpus else {})}
    deadline = time.monotonic() + timeout_seconds
    request_resources(
        bundles=[bundle] * num_workers,
        bundle_label_selectors=[resources.node_labels] * num_workers,
    )
    while time.monotonic() < deadline:
        has_kind = not gpus or num_gpus(resources)
        if has_kind and available_workers(resources) >= num_workers:
            break
        time.sleep(1)
    # From here on the run asks for what it needs, and nodes that idle may leave.
    request_resources(bundles=[])


def reason_of_death(error: BaseException) -> str:
    """Return in one line why a worker process died, as far as Ray knows."""
    # Indented lines are the numbers of actor, job and node.
    lines = [line for line in str(error).splitlines() if not line.startswith(("\t", " "))]
    return " ".join(" ".join(lines).split())[:300]


@contextlib.contextmanager
def owned_devices() -> Iterator[None]:
    """Let work in a task or an actor use the GPUs that Ray gave it, and no others.

    Ray hides the others only from those it gave some.
    """
    has_gpu = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    with contextlib.nullcontext() if has_gpu else without_gpu():
        yield


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Let an ``InputError`` of remote code, and a full object store, arrive as one line."""
    try:
        yield
    except (RayTaskError, ObjectStoreFullError, OutOfDiskError, *DEATHS) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, InputError):
            raise cause from None
        if isinstance(cause, DEATHS):
            raise InputError(
                "worker process of the Ray cluster",
                expected="one that lives until its work is done",
                got=reason_of_death(cause),
                remedy="free memory on the nodes, or look at Ray's logs; the same command goes on",
            ) from error
        if isinstance(cause, (ObjectStoreFullError, OutOfDiskError)):
            raise InputError(
                "object store of the Ray cluster",
                expected="room in memory, or on the disk it spills to",
                got="neither",
                remedy="free space in Ray's temporary folder, or start Ray with a larger one",
            ) from error
        raise
