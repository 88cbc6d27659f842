"""What came out of a sweep: its trials in order, their table, the winner and the figures."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from bnce_dist.config.load import to_yaml, with_values
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.jobs import JobConfig
from bnce_dist.runs.sweep.trial import Trial, TrialResult
from bnce_dist.tracking.tracker import Tracker

if TYPE_CHECKING:
    from bnce_dist.report.sweep import SweepResults

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


def record_outcome(
    sweep: SweepConfig, base: JobConfig, folder: SweepFolder, tracker: Tracker
) -> TrialResult:
    """Write the winner and the figures, record everything, and return the best trial.

    Raises: InputError: no trial finished.
    """
    # matplotlib takes a second to import, which an error should not wait for.
    from bnce_dist.report.sweep import write_sweep_figures

    best = write_outcome(sweep, base, folder)
    for figure in write_sweep_figures(folder.path / "figures", sweep_results(sweep, folder)):
        tracker.log_figure(figure)
    for name in OUTCOME:
        if (folder.path / name).exists():
            tracker.log_artifact(folder.path / name)
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


def sweep_results(sweep: SweepConfig, folder: SweepFolder) -> "SweepResults":
    """Return what figures show: the trials that have a metric, the best one first."""
    from bnce_dist.report.sweep import SweepResults

    results = [result for result in ranked(folder.results, sweep) if result.metric is not None]
    return SweepResults(
        metric=np.array([result.metric for result in results], float),
        metric_name=sweep.metric,
        finished=np.array([result.status == "finished" for result in results]),
        settings={key: [result.values[key] for result in results] for key in sweep.space},
        logarithmic={key for key, dimension in sweep.space.items() if dimension.log_uniform},
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
