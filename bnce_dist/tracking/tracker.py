"""What a run records: into a file of its folder, or nowhere."""

import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bnce_dist.tracking.journal import Journal

JOURNAL_NAME = "tracking.jsonl"
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
        delta_f_low_kT: Lower end of the free energy's 95 % interval [kT]; None where an earlier
            version registered it.
        delta_f_high_kT: Upper end [kT].
    """

    TAG: ClassVar[str] = "bnce_dist.quality"

    run: str
    delta_f_error_kT: float
    ess_fraction: float
    reliable: bool
    delta_f_low_kT: float | None = None
    delta_f_high_kT: float | None = None

    @classmethod
    def of(cls, run: str, metrics: Mapping[str, Any]) -> Self:
        """Return the quality that a run's ``metrics.json`` tells."""
        error = abs(metrics["delta_f_kT"] - metrics["delta_f_reference_kT"])
        reliable = metrics["verdict"]["reliable"]
        return cls(run, error, metrics["ess_fraction"], reliable, *metrics["delta_f_interval_kT"])

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """Return what `to_tags` wrote."""
        return cls(**json.loads(tags[cls.TAG]))

    def to_tags(self) -> dict[str, str]:
        """Return the quality as a tag of a registered model."""
        return {self.TAG: json.dumps(asdict(self))}


class Tracker:
    """One run of the pipeline, with one child run per stage, in ``<run_folder>/tracking.jsonl``.

    Everything logged goes to the innermost open run. A run that is started again with the
    same name and the same parameters goes on where it stopped; other parameters make a new
    run. A tracker belongs to one thread of the driver process.

    Args:
        run_folder: The pipeline's folder; it outlives the process, so a second tracker on
            the same folder continues the runs of the first. Without one nothing is recorded.
    """

    def __init__(self, run_folder: str | Path | None = None) -> None:
        self._open_runs: list[str] = []
        self._known_runs: dict[str, str] = {}
        self._values: dict[tuple[str, str, int], float | str] = {}
        self._folder = Path(run_folder or "").absolute()
        self._journal = Journal(self._folder / JOURNAL_NAME) if run_folder is not None else None
        if self._journal is not None:
            self._journal.cut_torn_line()
            for _, record in self._journal.read():
                self._remember(record)

    @property
    def unsent(self) -> int:
        """Records that wait for another destination than the file."""
        return 0

    def start_run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> None:
        """Open the parent run, or continue it; nested ``params`` get dotted names."""
        self._open(name, params, tags or {})

    @contextlib.contextmanager
    def stage(self, name: str, params: Mapping[str, object] | None = None) -> Iterator[None]:
        """Open a child run for the block, or continue it; an exception marks it failed."""
        self._open(name, params or {}, {})
        status: Status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self._record("end", self._open_runs.pop(), status=status)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record the values that are not recorded at this step already."""
        run = self._current_run
        values = {name: _json_number(value) for name, value in metrics.items()}
        new = {k: v for k, v in values.items() if self._values.get((run, k, step)) != v}
        if new:
            self._record("metrics", run, step=step, values=new)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Label the run; a label that it has already is replaced."""
        self._record("tags", self._current_run, tags=dict(tags))

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Record where a file lies; inside the run folder it is named relative to it."""
        absolute = Path(path).absolute()
        inside = absolute.is_relative_to(self._folder)
        name = absolute.relative_to(self._folder) if inside else absolute
        self._record("artifact", self._current_run, path=os.fspath(name), folder=folder)

    def log_figure(self, path: str | Path) -> None:
        """Record an image under ``figures``."""
        self.log_artifact(path, "figures")

    def log_model(self, kind: ModelKind, path: str | Path) -> None:
        """Record a checkpoint, which carries its own metadata, under ``models/<kind>``."""
        self.log_artifact(path, f"models/{kind}")

    def log_generator(
        self, name: str, path: str | Path, example_nm: Positions, quality: Quality
    ) -> None:
        """Record a finished generator under ``models``, or offer it to a registry of models."""
        self.log_artifact(path, "models")

    def predecessor(self, name: str) -> Quality | None:
        """Return the quality of the model registered before this run's; a file registers none."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the parent run."""
        self._record("end", self._current_run, status=status)
        self._open_runs.clear()

    @property
    def _current_run(self) -> str:
        if not self._open_runs:
            raise RuntimeError("start_run comes before anything is logged")
        return self._open_runs[-1]

    def _open(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        start: dict[str, Any] = {
            "parent": self._open_runs[-1] if self._open_runs else None,
            "name": name,
            "params": flatten(params),
        }
        run = self._known_runs.get(_identity(start)) or uuid.uuid4().hex
        self._open_runs.append(run)
        self._record("start", run, **start, tags=dict(tags))

    def _record(self, event: str, run: str, **content: Any) -> None:
        record = {"event": event, "run": run, "time_ms": time.time_ns() // 1_000_000, **content}
        if self._journal is not None:
            self._journal.append(record)
        self._remember(record)

    def _remember(self, record: Mapping[str, Any]) -> None:
        run = record["run"]
        if record["event"] == "start":
            self._known_runs[_identity(record)] = run
        elif record["event"] == "metrics":
            for name, value in record["values"].items():
                self._values[run, name, record["step"]] = value


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested parameters as text under dotted names."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def _identity(start: Mapping[str, Any]) -> str:
    return json.dumps([start["parent"], start["name"], start["params"]], sort_keys=True)


def _json_number(value: float) -> float | str:
    # JSON has no NaN or infinity; float() reads their names back.
    number = float(value)
    return number if math.isfinite(number) else repr(number)
