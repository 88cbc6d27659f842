"""A tracker that writes JSON lines into the run folder."""

import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnce_dist.tracking.journal import Journal
from bnce_dist.tracking.tracker import ModelKind, Positions, Quality, Status

JOURNAL_NAME = "tracking.jsonl"


class JsonLinesTracker:
    """Record everything in ``<run_folder>/tracking.jsonl``.

    Args:
        run_folder: The pipeline's folder; it outlives the process, so a second tracker on
            the same folder continues the runs of the first.
    """

    def __init__(self, run_folder: str | Path) -> None:
        self._folder = Path(run_folder).absolute()
        self._journal = Journal(self._folder / JOURNAL_NAME)
        self._journal.cut_torn_line()
        self._open_runs: list[str] = []
        self._known_runs: dict[str, str] = {}
        self._values: dict[tuple[str, str, int], float | str] = {}
        for _, record in self._journal.read():
            self._remember(record)

    @property
    def unsent(self) -> int:
        """The file is the destination, so nothing is ever waiting."""
        return 0

    def start_run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> None:
        """Open the parent run, or continue it."""
        self._open(name, params, tags or {})

    @contextlib.contextmanager
    def stage(self, name: str, params: Mapping[str, object] | None = None) -> Iterator[None]:
        """Open a child run for the block, or continue it."""
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
        """Record labels of the run."""
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
        """Record a checkpoint under ``models/<kind>``."""
        self.log_artifact(path, f"models/{kind}")

    def log_generator(
        self, name: str, path: str | Path, example_nm: Positions, quality: Quality
    ) -> None:
        """Record the file under ``models``."""
        self.log_artifact(path, "models")

    def predecessor(self, name: str) -> Quality | None:
        """Return nothing: a file registers no models."""

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
