"""Run many molecules side by side, show how far they are, and leave one table."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.fleet.members import Member, Outcome
from bnce_dist.runs.fleet.table import PUBLISHED_MD_DELTA_F_KT, fleet_record, fleet_table
from bnce_dist.runs.molecule import tracked
from bnce_dist.runs.report import write_fleet_page
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.progress import Progress

POLL_SECONDS = 2.0
RunMember = Callable[[Config, RunFolder, Executor], dict[str, Any] | None]
"""Runs one molecule's pipeline and returns its metrics."""


def run_fleet(
    members: Sequence[Member],
    run_member: RunMember,
    executor: Executor,
    stages: Sequence[str],
    variant: str = "",
) -> list[Outcome]:
    """Run all members; one that fails does not stop the others.

    The largest molecules start first, so that none of them runs alone in the end.

    Args:
        members: Who takes part.
        run_member: Picklable.
        executor: Deals its workers to the members.
        stages: What every member goes through, for the progress display.
        variant: Of all members.
    """
    queue = sorted(members, key=lambda member: member.num_atoms, reverse=True)
    with _progress(members, stages):
        outcomes = executor.map_jobs(_Job(run_member), queue)
    results = {member.name: result for member, result in zip(queue, outcomes, strict=True)}
    return [
        Outcome(name, error=_one_line(result), variant=variant)
        if isinstance(result, Exception)
        else Outcome(name, metrics=result, variant=variant)
        for name, result in ((member.name, results[member.name]) for member in members)
    ]


@dataclass(frozen=True)
class _Job:
    run_member: RunMember

    def __call__(self, member: Member, executor: Executor) -> dict[str, Any] | None:
        return self.run_member(member.config, member.folder, executor)


@contextlib.contextmanager
def tracked_fleet(config: Config, folder: Path) -> Iterator[Tracker]:
    """Track a fleet as a run of its own, beside those of its members.

    It is opened before any member: a store that is new must be set up by one process alone.
    """
    params = config.model_dump(mode="json", exclude={"cluster", "tracking", "target"})
    with tracked(config.tracking, folder, params) as tracker:
        yield tracker


def write_fleet(outcomes: Sequence[Outcome], folder: Path, tracker: Tracker) -> None:
    """Leave the table, the figure and the report of a fleet in its folder and record them."""
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.fleet import fleet_figure

    record = fleet_record(outcomes)
    write_json(folder / "fleet.json", record)
    with atomic_path(folder / "fleet.md") as temporary:
        temporary.write_text(fleet_table(outcomes) + "\n")
    tracker.log_artifact(folder / "fleet.json")
    tracker.log_artifact(folder / "fleet.md")
    tracker.log_metrics(record["summary"])
    finished = {o.name: o.metrics for o in outcomes if o.metrics is not None}
    if finished:
        known = PUBLISHED_MD_DELTA_F_KT
        published = {o.name: known[o.sequence] for o in outcomes if o.sequence in known}
        save_figure(fleet_figure(finished, published), folder / "fleet.png")
        tracker.log_figure(folder / "fleet.png")
        tracker.log_artifact(write_fleet_page(folder, record["molecules"]))


@contextlib.contextmanager
def _progress(members: Sequence[Member], stages: Sequence[str]) -> Iterator[None]:
    """Show the finished stages of all members, which workers anywhere leave in the folders."""
    over = threading.Event()

    def watch() -> None:
        shown = -1
        with Progress("fleet", total=len(members) * len(stages), unit="stage") as progress:
            while not over.wait(POLL_SECONDS):
                current = {member.name: _finished(member, stages) for member in members}
                if (done := sum(map(len, current.values()))) != shown:
                    shown = done
                    progress.update(done, note=_note(current, stages))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _finished(member: Member, stages: Sequence[str]) -> list[str]:
    return [name for name in stages if Artifact.is_declared_finished(member.folder.stage(name))]


def _note(finished: Mapping[str, Sequence[str]], stages: Sequence[str]) -> str:
    return ", ".join(f"{name} {len(done)}/{len(stages)}" for name, done in finished.items())


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__
