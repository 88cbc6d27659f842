"""What a run waits for, said now and then, also by jobs that are run in other processes."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import ray
from tqdm import tqdm

PATIENCE_SECONDS = 10.0
REPEAT_SECONDS = 60.0
_NAMES = {"CPU": "core", "GPU": "GPU"}


Listener = Callable[[str], object]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def say(line: str) -> None:
    """Tell the user a line: by the listener, else on the terminal above the progress bar."""
    listener = _listener.get()
    if listener is None:
        tqdm.write(line, sys.stderr)
    else:
        listener(line)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have a listener called with what is said in the block, in place of the terminal."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Waiting:
    """Says which cores or GPUs are waited for: at first after ten seconds, then every minute.

    Args:
        label: Of the work that waits.
        kind: What each worker takes.
        num_each: How much of it.
    """

    def __init__(self, label: str, kind: Literal["CPU", "GPU"], num_each: int = 1) -> None:
        self._label, self._kind, self._num_each = label, kind, num_each
        self._next = time.monotonic() + PATIENCE_SECONDS

    def look(self, num_missing: int) -> None:
        """Say what is waited for, if it is time and the cluster has too little of it.

        Args:
            num_missing: Workers that have not begun.
        """
        if not num_missing:  # those that come later have their ten seconds too
            self._next = time.monotonic() + PATIENCE_SECONDS
            return
        if time.monotonic() < self._next:
            return
        free = int(ray.available_resources().get(self._kind, 0))
        wanted = num_missing * self._num_each
        if free >= wanted:  # they are on their way
            return
        self._next = time.monotonic() + REPEAT_SECONDS
        name = _NAMES[self._kind] + ("s" if wanted > 1 else "")
        say(f"{self._label}: waiting for {wanted} {name}, {free} free")


class WaitingRelay:
    """Carries to the driver what it cannot see of its jobs: who has begun, and what they say.

    Nobody asks what became of a note, so it is not sent again: Ray would announce every retry, also
    of those that the driver ends the relay under.
    """

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._lines: list[str] = []

    @ray.method(max_task_retries=0)
    def begin(self, index: int) -> None:
        """Note that a job has a process."""
        self._begun.add(index)

    @ray.method(max_task_retries=0)
    def say(self, line: str) -> None:
        """Take a line in."""
        self._lines.append(line)

    def take(self) -> tuple[set[int], list[str]]:
        """Return which jobs have begun, and the lines since the last call."""
        lines, self._lines = self._lines, []
        return self._begun, lines
