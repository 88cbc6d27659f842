"""Independent pieces of work as Ray tasks, e.g. chains of a simulation."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.cluster import ANYWHERE, one_line_errors
from bnce_dist.training.progress import Progress

Item = TypeVar("Item")
Output = TypeVar("Output")


def map_tasks(
    function: Callable[[Item], Output],
    items: Sequence[Item],
    *,
    label: str,
    num_cpus: float = 1,
    max_retries: int = 3,
) -> list[Output]:
    """Return ``[function(item) for item in items]``, computed on the cluster.

    Args:
        function: Picklable. It may run more than once per item, so it must depend on nothing
            but the item.
        items: Picklable; numpy arrays travel without copies on one machine.
        label: Of the progress bar.
        num_cpus: Cores one call takes.
        max_retries: How often an item is run again after its worker or node died.

    Raises: what ``function`` raises; the items not yet done are given up.
    """
    call = _call.options(num_cpus=num_cpus, max_retries=max_retries)
    pending: list[ray.ObjectRef] = []
    try:
        with Progress(label, total=len(items), unit="task") as progress, one_line_errors():
            shared_function = ray.put(function)
            references = [call.remote(shared_function, item) for item in items]
            pending = references
            while pending:
                done, pending = ray.wait(pending)
                ray.get(done)
                progress.update(len(references) - len(pending))
            return ray.get(references)
    finally:
        for reference in pending:
            ray.cancel(reference)


def map_to_outcomes(
    function: Callable[[Item], Output],
    items: Sequence[Item],
    *,
    num_cpus: float,
    max_concurrent: int,
) -> list[Output | Exception]:
    """Return what ``function`` returned or raised for every item.

    Args:
        function: Picklable; it runs again for an item whose worker or node died.
        items: Picklable.
        num_cpus: Cores one call takes for itself, besides those of what it starts.
        max_concurrent: Calls at the same time.
    """
    call = _call.options(num_cpus=num_cpus)
    shared_function = ray.put(function)
    outcomes: dict[int, Output | Exception] = {}
    running: dict[ray.ObjectRef, int] = {}
    waiting = deque(range(len(items)))
    try:
        while waiting or running:
            while waiting and len(running) < max_concurrent:
                index = waiting.popleft()
                running[call.remote(shared_function, items[index])] = index
            (finished,), _ = ray.wait(list(running), num_returns=1)
            outcomes[running.pop(finished)] = _outcome(finished)
    finally:
        for reference in running:
            ray.cancel(reference)
    return [outcomes[index] for index in range(len(items))]


def _outcome(reference: ray.ObjectRef) -> Any:
    try:
        with one_line_errors():
            return ray.get(reference)
    except (InputError, RayError) as error:
        return error


@ray.remote(**ANYWHERE)
def _call(function: Callable[[Item], Output], item: Item) -> Output:
    return function(item)
