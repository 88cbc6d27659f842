"""Where a result came from: commit, versions and machine of what computed it, and its memory."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

_PACKAGES = ("bnce_dist", "torch", "numpy", "openmm", "ray", "mlflow")
_INTERVAL_SECONDS = 2.0


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """Return the commit of the source, ``+changes`` if it was edited; None outside git."""
    # Installed into somebody's environment, it may lie inside a repository of theirs.
    if shutil.which("git") is None or not _git("ls-files", "--error-unmatch", Path(__file__).name):
        return None
    options = ("--always", "--abbrev=40", "--exclude=*", "--dirty=+changes")
    return _git("describe", *options) or None


def hardware() -> str:
    """Return the processor of this machine and how many cores it shows."""
    return f"{_cpu_name()}, {os.cpu_count()} logical cores"


class PeakMemory(AbstractContextManager["PeakMemory"]):
    """Watches the memory of this process and its descendants during a ``with`` block.

    Memory that processes share is divided among them (proportional set size) where the system
    tells it, on Linux; elsewhere the resident sets are added up. Processes of a Ray cluster that
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
        process = psutil.Process()
        while True:
            family = [process, *process.children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(map(memory_bytes, family)))
            if self._stop.wait(_INTERVAL_SECONDS):
                return


def memory_bytes(process: psutil.Process) -> int:
    """Return a process's own memory and its part of what it shares; 0 once it has ended."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:  # it has ended meanwhile, or belongs to somebody else
        return 0
    return getattr(memory, "pss", memory.rss)


def _git(*arguments: str) -> str:
    """Return what git answers in the folder of the source, nothing if it refuses."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "" if done.returncode else done.stdout.strip()


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
