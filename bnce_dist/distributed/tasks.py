"""Independent pieces of work as Ray tasks, e.g. the members of a fleet."""

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


def map_to_outcomes(
    function: Callable[[Item], Output],
    items: Sequence[Item],
    *,
    num_cpus: float,
    max_concurrent: int,
    label: str = "",
) -> list[Output | Exception]:
    """Return what ``function`` returned or raised for every item.

    Args:
        function: Picklable; it runs again for an item whose worker or node died.
        items: Picklable.
        num_cpus: Cores one call takes for itself, besides those of what it starts.
        max_concurrent: Calls at the same time.
        label: Of the progress bar; without one there is none.

    Raises: InputError: Ray has no room for the items.
    """
    call = _call.options(num_cpus=num_cpus)
    shared_function = ray.put(function)
    outcomes: dict[int, Output | Exception] = {}
    running: dict[ray.ObjectRef, int] = {}
    waiting = deque(range(len(items)))
    bar = Progress(label, total=len(items), unit="run", shown=bool(label))
    try:
        with bar as progress, one_line_errors():
            while waiting or running:
                while waiting and len(running) < max_concurrent:
                    index = waiting.popleft()
                    running[call.remote(shared_function, items[index])] = index
                (finished,), _ = ray.wait(list(running), num_returns=1)
                outcomes[running.pop(finished)] = _outcome(finished)
                progress.update(len(outcomes))
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
