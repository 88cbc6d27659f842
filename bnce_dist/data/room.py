"""Is there room for what is about to be made? Told before it is begun."""

import shutil
from contextlib import suppress
from pathlib import Path

from bnce_dist.core.errors import InputError

_CGROUP = Path("/sys/fs/cgroup")


def require_disk(folder: Path, num_bytes: int) -> None:
    """Check that a folder's disk takes this much more.

    Raises: InputError: it does not.
    """
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise _no_room(f"disk of {folder}", num_bytes, free, "free space, or choose another folder")


def require_memory(what: str, num_bytes: int, remedy: str) -> None:
    """Check that this process can have this much more memory.

    Args:
        what: Needs it.
        num_bytes: At its peak.
        remedy: What the user can do otherwise.

    Raises: InputError: it cannot; where the system does not say, nothing happens.
    """
    available = available_memory()
    if available is not None and available < num_bytes:
        raise _no_room(f"memory for {what}", num_bytes, available, remedy)


def available_memory() -> int | None:
    """Return the bytes that the machine, and a container if we are in one, can still give."""
    bounds = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        bounds.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError, StopIteration):
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        # Files that were read once, whose memory the system gives to whoever needs it.
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        bounds.append(limit - used + cached)
    return min(bounds, default=None)


def _no_room(what: str, needed: int, found: int, remedy: str) -> InputError:
    return InputError(
        what,
        expected=f"{needed / 1e6:.0f} MB free",
        got=f"{found / 1e6:.0f} MB",
        remedy=remedy,
    )
