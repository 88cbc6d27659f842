"""The folder of a sweep: whose it is, its trials, and what came out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnce_dist.config.load import load_config, to_yaml, with_values
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.runs.sweep.config import SweepConfig, dotted
from bnce_dist.runs.sweep.jobs import JobConfig
from bnce_dist.runs.sweep.trial import Trial, TrialResult
from bnce_dist.tracking.tracker import Tracker

# They change how a sweep is executed, and how far it goes.
_FREE = ("num_trials", "max_concurrent", "tracking.", "base.cluster.", "base.tracking.")


@dataclass(frozen=True)
class SweepFolder:
    """``<output>/<name>``: ``sweep.yaml``, ``trials/<number>``, and ``shared`` by all trials.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The resolved configuration of the sweep."""
        earlier = self.path / "study.yaml"  # what version 0.1 called it
        return earlier if earlier.exists() else self.path / "sweep.yaml"

    @property
    def shared(self) -> Path:
        """What is computed once for all trials."""
        return self.path / "shared"

    @property
    def trials(self) -> list[Trial]:
        """The trials begun so far, by number."""
        return [Trial(state.parent) for state in sorted(self.path.glob("trials/*/trial.json"))]

    @property
    def results(self) -> list[TrialResult]:
        """Those of the trials that ended, by number."""
        return [result for trial in self.trials if (result := trial.result) is not None]

    def trial(self, number: int) -> Trial:
        """Return a trial, begun or not."""
        return Trial(self.path / "trials" / f"{number:04d}")

    def require_same_sweep(self, sweep: SweepConfig, *, resume: bool) -> None:
        """Check that the folder is new, or holds this sweep and it is to be resumed.

        Args:
            sweep: Resolved, as `write_config` got it.
            resume: Whether the user asked to continue.

        Raises: InputError: it holds a sweep already, or another one.
        """
        if not self.config_path.exists():
            return
        if not resume:
            raise InputError(
                f"sweep folder {self.path}",
                expected="a new folder",
                got=f"a sweep with {len(self.results)} of {sweep.num_trials} trials ended",
                remedy="give --resume to continue it, or choose another --name",
            )
        old = _decisive(load_config(SweepConfig, self.config_path))
        new = _decisive(sweep)
        keys = sorted(old.keys() | new.keys())
        changed = [f"{key}={old.get(key)}" for key in keys if old.get(key) != new.get(key)]
        if changed:
            raise InputError(
                f"sweep folder {self.path}",
                expected="the sweep it was begun with",
                got=f"a sweep that there has {', '.join(changed)}",
                remedy="go back to these settings, or choose another --name for a new sweep",
            )

    def write_config(self, sweep: SweepConfig) -> None:
        """Record the configuration as the sweep's."""
        with atomic_path(self.config_path) as temporary:
            temporary.write_text(to_yaml(sweep))


def _decisive(sweep: SweepConfig) -> dict[str, object]:
    """Return the settings that a sweep keeps for good."""
    settings = dotted(sweep.model_dump(mode="json"))
    return {key: value for key, value in settings.items() if not key.startswith(_FREE)}


OUTCOME = ("table.md", "table.json", "best.yaml", "schedule.json")
"""Files that `write_outcome` leaves; the last only for a population."""


def track(trial: Trial, tracker: Tracker) -> None:
    """Record a trial that ended as a child run; repeating it changes nothing.

    The final numbers have names of their own, so that each is there once.
    """
    result = trial.result
    if result is None:
        return
    with tracker.stage(f"trial {trial.name}", {"status": result.status, **result.values}):
        for record in trial.history:
            numbers = {name: value for name, value in record.items() if name != "step"}
            tracker.log_metrics(numbers, step=int(record["step"]))
        if result.metric is not None:
            tracker.log_metrics({f"final_{name}": x for name, x in result.metrics.items()})


def ranked(results: Sequence[TrialResult], sweep: SweepConfig) -> list[TrialResult]:
    """Return the results from the best metric to the worst; finished trials come first.

    The metric of a trial that was stopped belongs to an earlier step, so it does not compete.
    """
    sign = 1 if sweep.mode == "min" else -1

    def order(result: TrialResult) -> tuple[bool, bool, float]:
        metric = result.metric
        return result.status != "finished", metric is None, sign * (metric or 0.0)

    return sorted(results, key=order)


def write_outcome(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> TrialResult:
    """Write ``table.md``, ``table.json``, ``best.yaml`` and, of a population, ``schedule.json``.

    Args:
        sweep: Resolved.
        base: Settings all trials share.
        folder: Of the sweep, with all trials ended.

    Returns: The best trial.
    Raises: InputError: no trial finished.
    """
    results = ranked(folder.results, sweep)
    write_json(folder.path / "table.json", [asdict(result) for result in results])
    with atomic_path(folder.path / "table.md") as temporary:
        temporary.write_text("\n".join(table_lines(results, sweep)) + "\n")
    best = results[0]
    if best.status != "finished" or best.metric is None:
        reasons = [result.reason for result in results if result.reason]
        raise InputError(
            f"sweep {folder.path}",
            expected="a trial that ran to its end",
            got=f"{len(results)} that did not; {reasons[0] if reasons else 'all were stopped'}",
            remedy="change the space or the base and start a new sweep",
        )
    with atomic_path(folder.path / "best.yaml") as temporary:
        temporary.write_text(to_yaml(with_values(base, best.values)))
    if sweep.scheduler == "pbt":
        schedule = folder.trial(int(best.name)).schedule
        write_json(folder.path / "schedule.json", [asdict(phase) for phase in schedule])
    return best


def table_lines(results: Sequence[TrialResult], sweep: SweepConfig) -> Iterator[str]:
    """Yield the lines of a Markdown table of the trials, in the order they come in."""
    header = ["trial", "status", sweep.metric, "step", *sweep.space]
    rows = [
        [
            result.name,
            result.status,
            _text(result.metric),
            str(result.step),
            *(_text(result.values[key]) for key in sweep.space),
        ]
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"


def sweep_columns(sweep: SweepConfig, folder: SweepFolder) -> dict[str, Any]:
    """Return the fields of ``report.sweep.SweepResults``: the trials that have a metric."""
    results = [result for result in ranked(folder.results, sweep) if result.metric is not None]
    return {
        "metric": np.array([result.metric for result in results], float),
        "metric_name": sweep.metric,
        "finished": np.array([result.status == "finished" for result in results]),
        "settings": {key: [result.values[key] for result in results] for key in sweep.space},
        "logarithmic": {key for key, dimension in sweep.space.items() if dimension.log_uniform},
    }


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
