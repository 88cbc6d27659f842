"""Independent pieces of work as Ray tasks, e.g. the members of a fleet."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from bnce_dist.core.allocator import keep_freed_memory
from bnce_dist.core.errors import InputError
from bnce_dist.distributed.cluster import ANYWHERE, SURVIVES, one_line_errors, owned_devices
from bnce_dist.distributed.waiting import Waiting, WaitingRelay, heard_by, say
from bnce_dist.training.progress import Progress

POLL_SECONDS = 2.0

Item = TypeVar("Item")
Output = TypeVar("Output")


def map_to_outcomes(
    function: Callable[[Item], Output],
    items: Sequence[Item],
    *,
    options: Mapping[str, Any],
    max_concurrent: int,
    label: str = "",
) -> list[Output | Exception]:
    """Return what ``function`` returned or raised for every item.

    What waits for cores longer than a moment, here or in what the calls start, is said.

    Args:
        function: Picklable; it runs again for an item whose worker or node died.
        items: Picklable.
        options: Ray's of one call: its cores, besides those of what it starts, and its nodes.
        max_concurrent: Calls at the same time.
        label: Of the progress bar; without one there is none.

    Raises: InputError: Ray has no room for the items.
    """
    call = _call.options(**options)
    shared_function = ray.put(function)
    relay = ray.remote(WaitingRelay).options(num_cpus=0, **ANYWHERE, **SURVIVES).remote()
    cores = Waiting(label or "runs", "CPU", options["num_cpus"])
    outcomes: dict[int, Output | Exception] = {}
    running: dict[ray.ObjectRef, int] = {}
    waiting = deque(range(len(items)))
    bar = Progress(label, total=len(items), unit="run", shown=bool(label))
    try:
        with bar as progress, one_line_errors():
            while waiting or running:
                while waiting and len(running) < max_concurrent:
                    index = waiting.popleft()
                    running[call.remote(shared_function, items[index], index, relay)] = index
                ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
                for finished in ended:
                    outcomes[running.pop(finished)] = _outcome(finished)
                    progress.update(len(outcomes))
                begun, lines = ray.get(relay.take.remote())
                for line in lines:
                    say(line)
                # What takes no core for itself says by a line what it waits for.
                cores.look(len(set(running.values()) - begun) if options["num_cpus"] else 0)
    finally:
        for reference in running:
            ray.cancel(reference)
        ray.kill(relay)
    return [outcomes[index] for index in range(len(items))]


def _outcome(reference: ray.ObjectRef) -> Any:
    try:
        with one_line_errors():
            return ray.get(reference)
    except (InputError, RayError) as error:
        return error


@ray.remote(**ANYWHERE)
def _call(function: Callable[[Item], Output], item: Item, index: int, relay: ActorHandle) -> Output:
    keep_freed_memory()
    relay.begin.remote(index)
    with heard_by(relay.say.remote), owned_devices():
        return function(item)
