"""The Ray cluster this process works with: the one it belongs to, or one of its own."""

import contextlib
import os
import socket
from collections.abc import Iterator

import ray
from ray.exceptions import AuthenticationError, RayTaskError

from bnce_dist.core.errors import InputError

SURVIVES = {"max_restarts": -1, "max_task_retries": -1}
"""Options of an actor that is started again when it dies, with the calls it had not finished."""


def ensure_ray(num_cpus: int | None = None) -> None:
    """Connect to the cluster named by ``RAY_ADDRESS``, else start a local one.

    ``ray job submit`` sets the address, so a job runs on the cluster it was submitted to.
    Nothing happens where Ray is connected already. Ray gives every worker as many threads
    (``OMP_NUM_THREADS``) as cores.

    Args:
        num_cpus: Cores of a local cluster; by default what the machine has.

    Raises: InputError: the named cluster cannot be reached or refuses this client.
    """
    if ray.is_initialized():
        return
    # Every remote error reaches the caller; a second copy on the terminal only hides it.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # What workers print stays in Ray's own log files.
    quiet = {"logging_level": "error", "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, AuthenticationError) as error:
        raise InputError(
            f"Ray cluster {address} (RAY_ADDRESS)",
            expected="a running cluster that accepts this client",
            got=error,
            remedy="check the address, export RAY_AUTH_MODE=token with the cluster's token, "
            "or unset RAY_ADDRESS to run on this machine alone",
        ) from error


def _knock(address: str) -> None:
    """Raise OSError if nothing listens there; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def num_gpus() -> int:
    """Return how many GPUs the cluster holds."""
    return int(ray.cluster_resources().get("GPU", 0))


def available_workers() -> int:
    """Return how many workers the cluster holds: one per GPU, or one per core without GPUs."""
    return num_gpus() or int(ray.cluster_resources().get("CPU", 0))


def require_workers(num_workers: int) -> None:
    """Refuse a number of workers that could never all start.

    Raises: InputError: none, or more than the cluster holds.
    """
    available = available_workers()
    if not 1 <= num_workers <= available:
        raise InputError(
            "number of workers",
            expected=f"1 to {available}, what the cluster holds",
            got=num_workers,
            remedy="ask for fewer workers or join more nodes to the cluster",
        )


@contextlib.contextmanager
def unwrapped_input_errors() -> Iterator[None]:
    """Let an ``InputError`` of remote code arrive as the one line it is."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
