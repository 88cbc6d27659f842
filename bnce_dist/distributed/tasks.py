"""Independent pieces of work as Ray tasks, e.g. chains of a simulation."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import ray

from bnce_dist.distributed.cluster import unwrapped_input_errors
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
    shared_function = ray.put(function)
    call = _call.options(num_cpus=num_cpus, max_retries=max_retries)
    references = [call.remote(shared_function, item) for item in items]
    pending = references
    try:
        with Progress(label, total=len(items), unit="task") as progress, unwrapped_input_errors():
            while pending:
                done, pending = ray.wait(pending)
                ray.get(done)
                progress.update(len(references) - len(pending))
            return ray.get(references)
    finally:
        for reference in pending:
            ray.cancel(reference)


@ray.remote
def _call(function: Callable[[Item], Output], item: Item) -> Output:
    return function(item)
