"""How the driver of a training group learns who leads it."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train.v2._internal.execution.callback import ControllerCallback


class Introduction(ControllerCallback):
    """Tells the driver who leads the group: Ray itself would tell a handler of Ctrl-C alone.

    Args:
        relay: Actor of a `RecordRelay`.
    """

    def __init__(self, relay: ActorHandle) -> None:
        self._relay = relay

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called in the leader's process."""
        self._relay.lead.remote(ray.get_runtime_context().current_actor)
