"""Run many molecules side by side, show how far they are, and leave one table."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.runs.fleet.members import Member, Outcome, members_of
from bnce_dist.runs.fleet.table import PUBLISHED_MD_DELTA_F_KT, fleet_record, fleet_table
from bnce_dist.runs.molecule import PreparedRun, prepare, run_molecule, tracked, with_common_store
from bnce_dist.runs.report import write_fleet_page
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.progress import Progress

POLL_SECONDS = 2.0
LOOKS_APART = 20
"""Times as long as a look takes."""
NUM_NAMED = 12
"""So many members are named in one line."""
RunMember = Callable[[PreparedRun, Executor], dict[str, Any] | None]
"""Runs one molecule's pipeline and returns its metrics."""


@dataclass(frozen=True)
class PreparedFleet:
    """A fleet all of whose members passed their checks.

    Args:
        config: Of every member, but for the molecule.
        folder: Of the fleet.
        runs: Of the members, by name.
    """

    config: Config
    folder: Path
    runs: Mapping[str, PreparedRun]

    @property
    def largest(self) -> PreparedRun:
        """The member that needs most storage."""
        return max(self.runs.values(), key=lambda run: run.plan.storage_bytes)


def prepare_fleet(
    config: Config, sequences: str, folder: Path, executor: Executor, *, resume: bool = False
) -> PreparedFleet:
    """Build and check every member before anything expensive.

    Args:
        config: Of every member, but for the molecule.
        sequences: Separated by commas, e.g. ``"AC,ET,GN"``, or a file of them.
        folder: Of the fleet; every member gets a folder of its own in it.
        executor: Its workers build the molecules, which takes seconds each.
        resume: Whether the members' folders may hold runs of another configuration.

    Raises: InputError: as `members_of` and `prepare`; it names every member that cannot be run.
    """
    config = with_common_store(config, folder)
    members = members_of(sequences, config, folder)
    label = "prepare" if len(members) > NUM_NAMED else ""
    prepared = executor.map_jobs(partial(_prepared, resume=resume), members, label=label)
    runs, errors = {}, {}
    for member, result in zip(members, prepared, strict=True):
        if isinstance(result, PreparedRun):
            runs[member.name] = result
        else:
            errors[member.name] = result
    if errors:
        raise combined_error(errors, len(members))
    return PreparedFleet(config, folder, runs)


def _prepared(member: Member, _: Executor, *, resume: bool) -> PreparedRun:
    return prepare(member.config, member.folder, resume=resume)


def combined_error(errors: Mapping[str, Exception], num_members: int) -> Exception:
    """Return the one error there is, or one that names all members that cannot be run.

    Args:
        errors: By member, at least one.
        num_members: Of the fleet.
    """
    others = [error for error in errors.values() if not isinstance(error, InputError)]
    if others or len(errors) == 1:
        return [*others, *errors.values()][0]
    named = [f"{name} ({_one_line(error)})" for name, error in errors.items()][:NUM_NAMED]
    more = len(errors) - len(named)
    return InputError(
        "--molecules",
        expected="molecules that can be run",
        got=f"{len(errors)} of {num_members} that cannot: {'; '.join(named)}"
        + (f"; and {more} more" if more else ""),
        remedy="correct the list",
    )


def run_fleet(
    fleet: PreparedFleet, executor: Executor, *, last_stage: str = STAGE_NAMES[-1]
) -> list[Outcome]:
    """Run all members and leave table, figure and report in the fleet's folder.

    Args:
        fleet: What `prepare_fleet` returned.
        executor: Deals its workers to the members.
        last_stage: Where every member stops.

    Raises: InputError: the tracking store does not answer.
    """
    with tracked_fleet(fleet.config, fleet.folder) as tracker:
        outcomes = run_members(
            fleet.runs,
            partial(run_molecule, last_stage=last_stage),
            executor,
            STAGE_NAMES[: STAGE_NAMES.index(last_stage) + 1],
        )
        write_fleet(outcomes, fleet.folder, tracker)
    return outcomes


def run_members(
    runs: Mapping[str, PreparedRun],
    run_member: RunMember,
    executor: Executor,
    stages: Sequence[str],
    variant: str = "",
) -> list[Outcome]:
    """Run all members; one that fails does not stop the others.

    The largest molecules start first, so that none of them runs alone in the end.

    Args:
        runs: The members by name.
        run_member: Picklable.
        executor: Deals its workers to the members.
        stages: What every member goes through, for the progress display.
        variant: Of all members.
    """
    queue = sorted(runs, key=lambda name: runs[name].target.molecule.num_atoms, reverse=True)
    with _progress(runs, stages):
        outcomes = executor.map_jobs(run_member, [runs[name] for name in queue])
    results = dict(zip(queue, outcomes, strict=True))
    return [_outcome(name, results[name], variant) for name in runs]


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
def _progress(runs: Mapping[str, PreparedRun], stages: Sequence[str]) -> Iterator[None]:
    """Show the finished stages of all members, which workers anywhere leave in the folders."""
    over = threading.Event()

    def watch() -> None:
        shown, pause = -1, POLL_SECONDS
        with Progress("fleet", total=len(runs) * len(stages), unit="stage") as progress:
            while not over.wait(pause):
                began = time.monotonic()
                current = {name: _finished(run, stages) for name, run in runs.items()}
                if (done := sum(map(len, current.values()))) != shown:
                    shown = done
                    progress.update(done, note=_note(current, stages))
                # To look after ten thousand members takes a second: not to be done all the time.
                pause = max(POLL_SECONDS, LOOKS_APART * (time.monotonic() - began))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _finished(run: PreparedRun, stages: Sequence[str]) -> list[str]:
    return [name for name in stages if Artifact.is_declared_finished(run.folder.stage(name))]


def _note(finished: Mapping[str, Sequence[str]], stages: Sequence[str]) -> str:
    """Return where every member is; of many, how many have ended and how many are at work."""
    done = [len(names) for names in finished.values()]
    if len(done) <= NUM_NAMED:
        return ", ".join(
            f"{name} {n}/{len(stages)}" for name, n in zip(finished, done, strict=True)
        )
    ended = done.count(len(stages))
    return f"{ended} of {len(done)} ended, {len(done) - ended - done.count(0)} on their way"


def _outcome(name: str, result: dict[str, Any] | Exception | None, variant: str) -> Outcome:
    """Return what became of a member; one without an estimate failed, for the verdict's reasons."""
    if isinstance(result, Exception):
        return Outcome(name, error=_one_line(result), variant=variant)
    if result is not None and result["delta_f_kT"] is None:
        return Outcome(name, error=" ".join(result["verdict"]["reasons"]), variant=variant)
    return Outcome(name, metrics=result, variant=variant)


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__
