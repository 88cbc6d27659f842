"""Many molecules, one run each: who they are, how far they are, and what came out."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.folder import RunFolder
from bnce_dist.training.progress import Progress

POLL_SECONDS = 2.0
RunMember = Callable[[Config, RunFolder, Executor], dict[str, Any] | None]
"""Runs one molecule's pipeline and returns its metrics."""


@dataclass(frozen=True)
class Member:
    """One molecule of a fleet.

    Args:
        name: Its sequence, and the variant if there is one; also names its folder.
        config: Of its run.
        folder: Of its run.
    """

    name: str
    config: Config
    folder: RunFolder

    @property
    def num_atoms(self) -> int:
        """Size of the molecule."""
        residues = parse_sequence(str(self.config.target.sequence))
        return sum(len(residue.atom_names) for residue in chain_templates(residues))


@dataclass(frozen=True)
class Outcome:
    """What became of one molecule.

    Args:
        name: Of its run: its sequence, and the variant after an underscore if there is one.
        metrics: Content of its ``metrics.json``; none if it failed or was to stop earlier.
        error: Why it failed, in one line; empty if it did not.
        variant: What tells several runs of one molecule apart.
    """

    name: str
    metrics: Mapping[str, Any] | None = None
    error: str = ""
    variant: str = ""

    @property
    def sequence(self) -> str:
        """The molecule's sequence."""
        return self.name.removesuffix(f"_{self.variant}")


def members_of(sequences: str, config: Config, folder: Path) -> list[Member]:
    """Return one member per sequence, all with the same settings otherwise.

    Args:
        sequences: Separated by commas, e.g. ``"AC,ET,GN"``.
        config: Of every member, but for the molecule.
        folder: Of the fleet; every member gets a folder of its own in it.

    Raises: InputError: no sequence, or one twice.
    """
    names = [name.strip() for name in sequences.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            "--molecules",
            expected="different sequences separated by commas, e.g. AC,ET,GN",
            got=repr(sequences),
            remedy="correct the list",
        )
    return [Member(name, _of_molecule(config, name), RunFolder(folder / name)) for name in names]


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


def _of_molecule(config: Config, sequence: str) -> Config:
    target = config.target.model_copy(update={"sequence": sequence, "pdb": None})
    return config.model_copy(update={"target": target})


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
