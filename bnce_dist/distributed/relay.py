"""What carries news from a training group to the driver; its process imports Ray alone."""

from typing import TYPE_CHECKING

from ray.actor import ActorHandle

if TYPE_CHECKING:
    from bnce_dist.training.task import Record


class RecordRelay:
    """Carries to the driver what it cannot see: the loss history, who has begun, and who leads.

    A ``UserCallback`` of Ray Train would hear of records by ``ray.train.report`` alone, at which
    all ranks wait for each other, and in the leader's process, from where they had to travel on.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._ranks: set[int] = set()
        self._leader: ActorHandle | None = None

    def begin(self, rank: int) -> None:
        """Note that a rank has a process."""
        self._ranks.add(rank)

    def begun(self) -> int:
        """Return how many ranks have had a process."""
        return len(self._ranks)

    def lead(self, leader: ActorHandle) -> None:
        """Take note of the actor that leads the group."""
        self._leader = leader

    def leader(self) -> ActorHandle | None:
        """Return the group's leader, if it has begun."""
        return self._leader

    def put(self, record: "Record") -> None:
        """Take a record in."""
        self._records.append(record)

    def take(self) -> "list[Record]":
        """Return the records that came in since the last call."""
        records, self._records = self._records, []
        return records
