"""Files that are either whole or absent."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError

DIGEST = "sha256"
"""The last field of a JSON file, which holds the digest of all the others."""

CHECKED_BY = "checked_by"
"""The first field of a JSON file: names the last, whose loss would not be noticed otherwise."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error.

    The temporary file lies in the target's folder, so the final rename is atomic; a reader
    sees the old file or the new one, never a part of it.

    Args:
        path: The file to write.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Remove what writers that were killed left in a folder and below; nobody may be writing."""
    for leftover in folder.rglob(".*.part"):
        leftover.unlink(missing_ok=True)


def not_writable(path: str | Path, error: OSError) -> InputError:
    """Return what to tell a user about a file or folder that the system refused to write."""
    return InputError(
        f"cannot write {path}",
        expected="a writable folder with free space",
        got=error.strerror or error,
        remedy="free space if the disk is full, else choose another --output",
    )


def require_new_files(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Check that nothing would be lost by writing files.

    Args:
        paths: The files.
        overwrite: Whether files that exist are to be replaced.

    Raises: InputError: one exists and is not to be replaced.
    """
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise InputError(
            f"output file {existing[0]}",
            expected="a new file",
            got="one that exists",
            remedy="choose another name, or give --overwrite",
        )


def require_writable(folder: Path) -> None:
    """Check that a folder can be made and written, before anything expensive.

    Raises: InputError: the system refuses it.
    """
    probe = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise not_writable(folder, error) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically; NaN is refused.

    An object gets a last field, ``sha256``, by which `read_json` knows it unaltered, and a first
    one that says so.
    """
    if isinstance(content, dict):
        content = {CHECKED_BY: DIGEST, **content, DIGEST: _json_sha256(content)}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a digest in it is checked and left out.

    Raises: InputError: the file is absent, is not JSON (torn, truncated) or was altered.
    """

    def refused(got: object) -> InputError:
        return InputError(
            f"file {path}",
            expected="JSON as it was written",
            got=got,
            remedy="delete it and run the stage that writes it again",
        )

    try:
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"file {path}",
            expected="an existing JSON file",
            got="nothing",
            remedy="check the path or run the stage that writes it",
        ) from error
    except OSError as error:
        raise refused(error.strerror or error) from error
    except (ValueError, RecursionError) as error:
        raise refused(f"unreadable text ({error})") from error
    if not isinstance(content, dict):
        return content
    announced = content.get(CHECKED_BY) == DIGEST
    rest = {name: value for name, value in content.items() if not announced or name != CHECKED_BY}
    name, digest = rest.popitem() if rest else ("", "")
    matches = digest == _json_sha256(rest)
    if name == DIGEST and matches:
        return rest
    # A lost digest, or a damaged name of it, would pass for a file of a version that wrote none; a
    # loss that touches first and last field leaves at most one text.
    is_remnant = not rest and isinstance(digest, str)
    if announced or name == DIGEST or matches or is_remnant:
        raise refused(f"other content than its {DIGEST} says")
    return content


def _json_sha256(content: dict[str, Any]) -> str:
    """Return the digest of an object as it comes back from a JSON file."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
