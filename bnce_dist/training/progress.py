"""One progress bar on a terminal, one line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:  # Importing torch takes seconds in every process that says how far it is.
    from bnce_dist.training.task import Record, TrainingTask

LINE_INTERVAL_SECONDS = 10.0
PART_INTERVAL_SECONDS = 1.0

Listener = Callable[[float, str], None]
"""Called with how much of a piece of work is done, from 0 to 1, and a note for people."""
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener called with what the work in the block says by `report_part`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_part(done: float, total: float, unit: str) -> None:
    """Say how far a long piece of work is; nothing happens where nobody listens.

    Args:
        done: How much of it.
        total: Of how much.
        unit: In which unit, e.g. ``"ps"``.
    """
    listener = _listener.get()
    if listener is not None:
        listener(min(done / total, 1.0) if total else 1.0, f"{done:.0f} of {total:.0f} {unit}")


class Progress(AbstractContextManager["Progress"]):
    """How far a known amount of work is, with its rate and the time left.

    Args:
        label: What is being done.
        total: Units of work altogether.
        unit: Name of one unit.
        done: Units done before this process began; they do not count towards the rate.
        shown: Whether anything is shown at all.
    """

    def __init__(
        self, label: str, *, total: int, unit: str, done: int = 0, shown: bool = True
    ) -> None:
        self._label, self._total, self._unit, self._initial = label, total, unit, done
        self._shown = shown
        self._started = self._last_line = self._last_part = time.monotonic()
        self._bar = (
            tqdm(desc=label, total=total, unit=unit, initial=done, dynamic_ncols=True)
            if shown and sys.stderr.isatty()
            else None
        )

    def update(self, done: float, note: str = "") -> None:
        """Show that ``done`` units are finished; fewer than before means work was lost."""
        done = round(done, 2)
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.n = done
            self._bar.refresh()
            return
        now = time.monotonic()
        if self._shown and (done >= self._total or now - self._last_line >= LINE_INTERVAL_SECONDS):
            self._last_line = now
            print(self._line(done, now - self._started, note), file=sys.stderr, flush=True)

    def within(self, done: int) -> Listener:
        """Return what shows how far the unit after ``done`` units is, once a second."""

        def listen(fraction: float, note: str) -> None:
            now = time.monotonic()
            if now - self._last_part >= PART_INTERVAL_SECONDS:
                self._last_part = now
                self.update(done + fraction, note)

        return listen

    def _line(self, done: float, elapsed: float, note: str) -> str:
        return tqdm.format_meter(
            done,
            self._total,
            elapsed,
            prefix=self._label,
            unit=self._unit,
            initial=self._initial,
            postfix=note or None,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *error: object) -> None:
        self.close()


class TrainingDisplay(AbstractContextManager["TrainingDisplay"]):
    """Shows the records of a training and hands each on once, also after a restart.

    Args:
        task: What is trained.
        done: Steps done before.
        report: Gets every new record.
    """

    def __init__(
        self, task: "TrainingTask", done: int, report: "Callable[[Record], None] | None"
    ) -> None:
        self._task, self._shown, self._report = task, done, report
        self._progress: Progress | None = None

    def show(self, record: "Record") -> None:
        """Show the record if it is later than all before."""
        if record["step"] <= self._shown:
            return
        self._shown = int(record["step"])
        if self._progress is None:  # only now, so that starting workers does not spoil the rate
            self._progress = Progress(
                f"train {self._task.metadata.stage}",
                total=self._task.settings.num_steps,
                unit="step",
                done=self._shown,
            )
        self._progress.update(self._shown, note=f"loss {record['loss']:.4g}")
        if self._report is not None:
            self._report(record)

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.close()
