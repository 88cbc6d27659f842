"""One process at a time in a folder, on whatever file system and from whatever node.

The kernel's lock (``flock``) is certain, but some file systems do not have it and others keep it to
one node. So its holder also leaves a file that says who it is and shows again and again that it is
alive; a file whose owner no longer does is taken over.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import not_writable

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
# How long a file of another node is watched for a sign of life.
WATCH_SECONDS = 30.0
_RETRY_SECONDS = 0.2
_NO_KERNEL_LOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class Taken(Exception):
    """Another process holds the lock.

    Args:
        owner: Which one, in a few words.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextlib.contextmanager
def only_process(path: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Keep other processes out of the block.

    Args:
        path: The lock's file; beside it lies ``<path>.owner`` while it is held.
        wait_seconds: How long to wait for another process to leave.

    Raises:
        Taken: another process is still there.
        InputError: the folder cannot be written, or its file system fails at locking.
    """
    deadline = time.monotonic() + wait_seconds
    with contextlib.ExitStack() as held:
        try:
            stream = held.enter_context(path.open("a+"))
            owner = _Owner(path.with_name(f"{path.name}.owner"))
            while True:
                try:
                    owner.take(_has_kernel_lock(stream, owner))
                    break
                except Taken:
                    if time.monotonic() >= deadline:
                        raise
                time.sleep(_RETRY_SECONDS)
        except OSError as error:
            raise not_writable(path, error) from error
        held.callback(owner.release)
        yield


def _has_kernel_lock(stream: TextIO, owner: "_Owner") -> bool:
    """Return whether the kernel's lock is ours; it may have none.

    Raises: Taken: it is another process's.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Taken(owner.described()) from None
    except OSError as error:
        if error.errno not in _NO_KERNEL_LOCK:
            raise InputError(
                f"lock file {stream.name}",
                expected="a file system that can lock it, or says that it cannot",
                got=error.strerror or error,
                remedy="choose an --output on another file system, or ask those who keep this one",
            ) from error
        return False
    return True


class _Owner:
    """The file that names who holds a lock and shows that it is alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_space": _pid_space(),
            "id": uuid.uuid4().hex,
        }
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self, has_kernel_lock: bool) -> None:
        """Put our file there.

        Raises: Taken: another process's is there, and it is alive.
        """
        found = self._read()
        if found is not None:
            self._require_dead(found, has_kernel_lock)
            self._bury(found)
        try:
            with self.path.open("x") as stream:
                json.dump(self._content | {"beat": 0}, stream)
        except FileExistsError:
            raise Taken(self.described()) from None
        self._thread.start()

    def _bury(self, dead: dict[str, Any]) -> None:
        """Move the file of a dead process away.

        Raises: Taken: it is not its file any more: another one that found it dead was faster.
        """
        grave = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(grave)
            try:
                if _content_of(grave) != dead:
                    self._put_back(grave)
                    raise Taken(self.described())
            finally:
                grave.unlink(missing_ok=True)

    def _put_back(self, grave: Path) -> None:
        try:
            self.path.hardlink_to(grave)
        except FileExistsError:
            pass
        except OSError:  # no hard links there
            grave.rename(self.path)

    def release(self) -> None:
        """Remove our file."""
        self._released.set()
        self._thread.join()
        if (self._read() or {}).get("id") == self._content["id"]:
            self.path.unlink(missing_ok=True)

    def described(self) -> str:
        """Return who holds the lock."""
        found = self._read()
        if not found or "pid" not in found:
            return "another process"
        return f"process {found['pid']} on {found['host']}"

    def _require_dead(self, found: dict[str, Any], has_kernel_lock: bool) -> None:
        # Names of hosts are not unique, and a container sees its own processes alone.
        if all(found.get(key) == self._content[key] for key in ("host", "pid_space")):
            # The kernel gives back the locks of the dead.
            if has_kernel_lock or not _is_running(found["pid"]):
                return
            raise Taken(self.described())
        logger.info(
            "%s may still be at work: looking for a sign of life for up to %.0f s",
            self.described(),
            WATCH_SECONDS,
        )
        deadline = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
            if (now := self._read()) is None:
                return
            if now != found:
                raise Taken(self.described())

    def _beat(self) -> None:
        beat = 0
        while not self._released.wait(BEAT_SECONDS):
            beat += 1
            # The next one may get through.
            with contextlib.suppress(OSError):
                # Whoever sleeps too long, in a machine that is paused, is taken for dead.
                if (self._read() or self._content).get("id") != self._content["id"]:
                    logger.warning("%s: taken over by %s", self.path, self.described())
                    return
                with self.path.open("r+") as stream:
                    stream.write(json.dumps(self._content | {"beat": beat}))

    def _read(self) -> dict[str, Any] | None:
        return _content_of(self.path)


def _content_of(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}  # just being written, or by something else
    return content if isinstance(content, dict) else {}


def _pid_space() -> str:
    """Return what tells apart processes of the same number: the machine since its start, and the
    container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
