"""An append-only file of JSON lines: what a run recorded, in order."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError


class Journal:
    """Records on disk, one JSON object per line.

    A record counts once its line is complete. Positions are byte offsets between records, so
    a reader can go on exactly where it stopped.

    Args:
        path: The file; it is created by the first record.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record through to the operating system.

        Raises: InputError: the file cannot be written or the disk is full.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One unbuffered write: lines of two processes do not mix.
            with self.path.open("ab", buffering=0) as stream:
                stream.write(line)
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}",
                expected="a writable folder with free space",
                got=error.strerror or error,
                remedy="free space or choose another --output",
            ) from error

    def read(self, position: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ``(position after the record, record)`` for all complete records from ``position``.

        Raises: InputError: a complete line is not JSON.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(position)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield position, self._parse(line)

    def cut_torn_line(self) -> None:
        """Remove what a writer that was killed left of its last record."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            with self.path.open("r+b") as stream:
                stream.truncate(complete)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            return json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"file {self.path}",
                expected="one JSON object per line",
                got=repr(line[:60]),
                remedy="remove that line or the file",
            ) from error
