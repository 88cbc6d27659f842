"""What the pipeline needs from a tracker, and the tracker that does nothing."""

import contextlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float64]
Status = Literal["FINISHED", "FAILED", "KILLED"]
ModelKind = Literal["emulator", "energy"]


@dataclass(frozen=True)
class Quality:
    """What models of one molecule are compared by.

    Args:
        run: Name of the run a model is from.
        delta_f_error_kT: Distance of its free energy to the reference [kT].
        ess_fraction: Effective samples over samples.
        reliable: Whether its weights can be trusted at all.
    """

    TAG: ClassVar[str] = "bnce_dist.quality"

    run: str
    delta_f_error_kT: float
    ess_fraction: float
    reliable: bool

    @classmethod
    def of(cls, run: str, metrics: Mapping[str, Any]) -> Self:
        """Return the quality that a run's ``metrics.json`` tells."""
        error = abs(metrics["delta_f_kT"] - metrics["delta_f_reference_kT"])
        return cls(run, error, metrics["ess_fraction"], metrics["verdict"]["reliable"])

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """Return what `to_tags` wrote."""
        return cls(**json.loads(tags[cls.TAG]))

    def to_tags(self) -> dict[str, str]:
        """Return the quality as a tag of a registered model."""
        return {self.TAG: json.dumps(asdict(self))}


class Tracker(Protocol):
    """One run of the pipeline, with one child run per stage.

    Everything logged goes to the innermost open run. A run that is started again with the
    same name and the same parameters goes on where it stopped; other parameters make a new
    run. A tracker belongs to one thread of the driver process.
    """

    @property
    def unsent(self) -> int:
        """Records that have not reached their destination yet."""

    def start_run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> None:
        """Open the parent run; nested ``params`` are flattened to dotted names."""

    def stage(
        self, name: str, params: Mapping[str, object] | None = None
    ) -> AbstractContextManager[None]:
        """Open a child run for the block; an exception marks it failed and goes on."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record values at a step; a value already recorded there is not repeated."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Label the run; a label that it has already is replaced."""

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Record a file of the run under ``folder``."""

    def log_figure(self, path: str | Path) -> None:
        """Record an image under ``figures``."""

    def log_model(self, kind: ModelKind, path: str | Path) -> None:
        """Record a checkpoint, which carries its own metadata, under ``models/<kind>``."""

    def log_generator(
        self, name: str, path: str | Path, example_nm: Positions, quality: Quality
    ) -> None:
        """Record a finished generator, and offer it to a registry of models under a name."""

    def predecessor(self, name: str) -> Quality | None:
        """Return the quality of the model that was last registered before this run's, if any."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the parent run."""


class NullTracker:
    """A tracker that records nothing."""

    @property
    def unsent(self) -> int:
        """Nothing is ever waiting."""
        return 0

    def start_run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> None:
        """Do nothing."""

    def stage(
        self, name: str, params: Mapping[str, object] | None = None
    ) -> AbstractContextManager[None]:
        """Do nothing around the block."""
        return contextlib.nullcontext()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Do nothing."""

    def log_figure(self, path: str | Path) -> None:
        """Do nothing."""

    def log_model(self, kind: ModelKind, path: str | Path) -> None:
        """Do nothing."""

    def log_generator(
        self, name: str, path: str | Path, example_nm: Positions, quality: Quality
    ) -> None:
        """Do nothing."""

    def predecessor(self, name: str) -> Quality | None:
        """Return nothing: nothing is registered."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Do nothing."""
