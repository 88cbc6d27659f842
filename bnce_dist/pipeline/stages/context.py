"""What every stage is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.task import Record


@dataclass(frozen=True)
class StageContext:
    """The arguments of a stage.

    Args:
        config: Of the run.
        target: Built from ``config.target``.
        folder: Where the stage writes; unfinished work of the same key may lie in it.
        inputs: Folder of each stage this one reads.
        key: Digest of everything the stage's content depends on.
        executor: Does the work.
        tracker: Records metrics in the stage's child run.
    """

    config: Config
    target: Target
    folder: Path
    inputs: Mapping[str, Path]
    key: str
    executor: Executor
    tracker: Tracker

    def metadata(self, units: Mapping[str, str]) -> DatasetMetadata:
        """Return the label of a data set this stage writes.

        Args:
            units: Unit of every array by its name.
        """
        return DatasetMetadata(self.target.molecule.identity, units, {"key": self.key})

    def track(self) -> Callable[[Record], None]:
        """Return the function that records a training's history in the tracker."""

        def report(record: Record) -> None:
            metrics = {name: value for name, value in record.items() if name != "step"}
            self.tracker.log_metrics(metrics, step=int(record["step"]))

        return report


Stage = Callable[[StageContext], None]
"""Reads the inputs' folders and leaves everything in its own."""
