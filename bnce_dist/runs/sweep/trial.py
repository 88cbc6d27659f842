"""One trial of a sweep: its settings over time, its history, and how it is run."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bnce_dist.config.load import with_values
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, read_json, write_json
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.sweep.jobs import Job, JobConfig
from bnce_dist.runs.sweep.space import Scalar
from bnce_dist.runs.sweep.trial_executor import CHECKPOINT, TrialExecutor
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.task import Record

Status = Literal["finished", "stopped", "failed"]

STATE = "trial.json"
RESULT = "result.json"


@dataclass(frozen=True)
class Phase:
    """Settings that a trial has from a step on.

    Args:
        step: Training steps done before.
        values: The settings by their dotted names.
        parent: The trial whose training it continues; nothing for the first phase.
    """

    step: int
    values: dict[str, Scalar]
    parent: str | None = None


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Args:
        name: Of the trial.
        status: Whether it ran to its end, was stopped by the scheduler, or failed.
        values: Its settings, in the end.
        metric: The sweep's metric: the final one, or the last one before it was stopped.
        step: Training steps that a record exists of.
        metrics: All final numbers.
        reason: Why it failed.
    """

    name: str
    status: Status
    values: dict[str, Scalar]
    metric: float | None
    step: int
    metrics: dict[str, float]
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """A trial's folder, which holds all there is to know about it.

    Each phase works in a folder of its own, numbered from 1. The state is replaced as a whole
    when a phase begins, so a trial that is killed at any time can be continued.

    Args:
        folder: ``<sweep>/trials/<name>``.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Number of the trial as text."""
        return self.folder.name

    @property
    def schedule(self) -> list[Phase]:
        """The phases so far; none before the trial began."""
        return [Phase(**phase) for phase in self._state()["schedule"]]

    @property
    def values(self) -> dict[str, Scalar]:
        """The present settings."""
        return self.schedule[-1].values

    @property
    def history(self) -> list[Record]:
        """What training reported at its checkpoints, step by step."""
        return self._state()["history"]

    @property
    def result(self) -> TrialResult | None:
        """How the trial ended, if it has."""
        path = self.folder / RESULT
        return TrialResult(**read_json(path)) if path.exists() else None

    def begin(self, values: dict[str, Scalar]) -> None:
        """Start the first phase, unless it was started before."""
        if not self.schedule:
            self._write(1, [Phase(0, values)], [])

    def share(self, folder: Path, checkpoint: Path) -> None:
        """Copy into a folder what another trial needs to go on from here."""
        shutil.copyfile(self.folder / STATE, folder / STATE)
        shutil.copyfile(checkpoint, folder / CHECKPOINT)

    def branch(self, shared: Path, values: dict[str, Scalar]) -> None:
        """Start a phase that continues a trial's training with other settings.

        Args:
            shared: Folder that the trial's `share` filled. If it was this trial with these
                settings, or if the phase was started before, nothing happens.
            values: The settings.
        """
        state = read_json(shared / STATE)
        phase = Phase(load_checkpoint(shared / CHECKPOINT)["step"], values, state["name"])
        if (phase.parent == self.name and values == self.values) or phase == self.schedule[-1]:
            return
        number = self._state()["phase"] + 1
        with atomic_path(self._start(number)) as temporary:
            shutil.copyfile(shared / CHECKPOINT, temporary)
        phases = [Phase(**earlier) for earlier in state["schedule"]]
        self._write(number, [*phases, phase], state["history"])

    def run(
        self,
        job: Job,
        base: JobConfig,
        shared: Path,
        executor: Executor,
        report: Callable[[Record, Path], None],
    ) -> dict[str, Any]:
        """Run the present phase to its end, or go on where it was interrupted.

        Args:
            job: What is run.
            base: Settings all trials share.
            shared: What `Job.prepare` left.
            executor: Does the work.
            report: Called with the record and the checkpoint whenever there is a new one, except
                at the end of the training, which leaves a scheduler nothing to decide.

        Returns: The content of ``metrics.json``.
        Raises: InputError: impossible settings, or a training that diverges or is judged by a
            number that is not finite.
        """
        number = self._state()["phase"]
        config = with_values(base, self.values)

        def remember(record: Record, checkpoint: Path | None) -> None:
            _require_finite(record)
            state = self._state()
            earlier = [known for known in state["history"] if known["step"] < record["step"]]
            write_json(self.folder / STATE, state | {"history": [*earlier, record]})
            if checkpoint is not None:
                report(record, checkpoint)

        following = TrialExecutor(executor, self._start(number), remember)
        return job.run(config, shared, self._work, following)

    def end(self, metric: str, status: Status, reason: str | None = None) -> TrialResult:
        """Record how the trial ended; if that was recorded before, nothing changes.

        Args:
            metric: Name of the sweep's metric.
            status: How it ended; one that ran to its end has left ``metrics.json``.
            reason: Why it failed.
        """
        if (known := self.result) is not None:
            return known
        history = self.history
        last: Mapping[str, Any] = history[-1] if history else {}
        final = read_json(self._work / "metrics.json") if status == "finished" else last
        metrics = {name: float(x) for name, x in final.items() if isinstance(x, int | float)}
        result = TrialResult(
            name=self.name,
            status=status,
            values=self.values,
            metric=None if status == "failed" else metrics.get(metric),
            step=int(last.get("step", 0)),
            metrics=metrics,
            reason=reason,
        )
        write_json(self.folder / RESULT, asdict(result))
        return result

    @property
    def _work(self) -> Path:
        """The folder of the present phase."""
        return self.folder / f"phase_{self._state()['phase']}"

    def _start(self, number: int) -> Path:
        """Return the checkpoint that a phase continues, if it continues one."""
        return self.folder / f"start_{number}.pt"

    def _state(self) -> dict[str, Any]:
        path = self.folder / STATE
        return read_json(path) if path.exists() else {"schedule": [], "history": []}

    def _write(self, number: int, schedule: Sequence[Phase], history: Sequence[Record]) -> None:
        phases = [asdict(phase) for phase in schedule]
        state = {"name": self.name, "phase": number, "schedule": phases, "history": history}
        write_json(self.folder / STATE, state)


def _require_finite(record: Record) -> None:
    for name, value in record.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} at step {record['step']}",
                expected="a finite number",
                got=value,
                remedy="exclude such settings from the space",
            )
