"""What a training group's leader does for us in its process: who it is, and what it gives back."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group


class Introduction(ControllerCallback, WorkerGroupCallback):
    """Tells the driver who leads the group, and gives back the place of one that did not begin.

    Ray itself would tell a handler of Ctrl-C alone who leads. And it forgets a group one of whose
    workers dies between its start and the begin of its work: the cores of all of them would stay
    reserved as long as the driver lives, and the next group would wait for them for ever.

    Args:
        relay: Actor of a `RecordRelay`.
    """

    def __init__(self, relay: ActorHandle) -> None:
        self._relay = relay
        self._place: PlacementGroup | None = None

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called in the leader's process."""
        self._relay.lead.remote(ray.get_runtime_context().current_actor)

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Take note of what is reserved."""
        state = worker_group.get_worker_group_state()
        self._place = state.placement_group_handle.placement_group

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """Forget what Ray has given back."""
        self._place = None

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Called before a group starts, also again."""
        self._give_back()

    async def before_controller_shutdown(self) -> None:
        """Called when there will be no other group."""
        self._give_back()

    def _give_back(self) -> None:
        if self._place is not None:
            remove_placement_group(self._place)
            self._place = None
