"""How much memory a run takes, all its processes together."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

_INTERVAL_SECONDS = 2.0
_PROC = Path("/proc")


class PeakMemory(AbstractContextManager["PeakMemory"]):
    """Watches this process and its descendants during a ``with`` block.

    Memory that processes share is divided among them (proportional set size). Works where
    there is a ``/proc`` (Linux); elsewhere the peak stays 0. Processes of a Ray cluster that
    was started by somebody else are not descendants and do not count.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            total = sum(proportional_bytes(pid) for pid in family(os.getpid()))
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(_INTERVAL_SECONDS):
                return


def family(root: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        # The name, in parentheses, may itself contain blanks and parentheses.
        fields = _read(stat).rpartition(")")[2].split()
        if fields:
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    pending = [root]
    while pending:
        pid = pending.pop()
        yield pid
        pending.extend(children.get(pid, []))


def proportional_bytes(pid: int) -> int:
    """Return a process's own memory and its part of what it shares; 0 once it has ended."""
    for line in _read(_PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    """Return a file's text; nothing if its process has ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
