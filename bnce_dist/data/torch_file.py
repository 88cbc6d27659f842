"""Files that ``torch.load`` reads, with a digest of their bytes in the archive's comment.

No code runs when one is read: ``weights_only`` admits plain types and tensors. The digest tells
damage (a flipped bit, a lost page), which torch itself does not look for; it is no signature.
"""

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.data.atomic import atomic_path

logger = logging.getLogger(__name__)

_LABEL = b"\nbnce_dist sha256 "
_COMMENT_BYTES = len(_LABEL) + 2 * hashlib.sha256().digest_size
# An archive ends with this record and its comment, whose length is the record's last number.
_BEGIN = b"PK"
_END, _END_BYTES, _LENGTH_BYTES = b"PK\5\6", 22, 2


def write_torch(path: str | Path, content: dict[str, Any]) -> None:
    """Write plain types and tensors with a digest, atomically.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    # Given a path, torch writes it itself and never says that the disk is full.
    with atomic_path(path) as temporary, temporary.open("w+b") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            raise _failed_write(error) or error from None
        add_digest(stream)


def halved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a network's weights in 16 bits where they are no integers."""
    return {
        name: weight.half() if weight.is_floating_point() else weight
        for name, weight in weights.items()
    }


def add_digest(stream: BinaryIO) -> None:
    """Append a digest to an archive without a comment, open for reading and writing."""
    stream.seek(-_LENGTH_BYTES, os.SEEK_END)
    stream.write(_COMMENT_BYTES.to_bytes(_LENGTH_BYTES, "little"))
    digest = _sha256(stream, stream.tell())
    stream.seek(0, os.SEEK_END)
    stream.write(_LABEL + digest)


def read_torch(path: str | Path, what: str, *, expected: str, remedy: str) -> dict[str, Any]:
    """Read a file that ``write_torch`` wrote, after checking its bytes, onto the CPU.

    A file of a version that wrote no digest is read with a note; its archive's own checksums are
    checked instead.

    Args:
        path: The file.
        what: Of the user's things it is, e.g. ``"model"``.
        expected: What it should hold.
        remedy: What the user can do about another one.

    Raises: InputError: absent, truncated, altered, or not such a file.
    """

    def refused(got: object) -> InputError:
        return InputError(f"{what} {path}", expected=expected, got=got, remedy=remedy)

    with as_input_error(refused):
        if not Path(path).exists():
            raise InputError(
                f"{what} {path}", expected=expected, got="no such file", remedy="check the path"
            )
        if Path(path).is_dir() or not _begins_as_archive(Path(path)):
            got = "a folder" if Path(path).is_dir() else "a file of another kind"
            raise InputError(f"{what} {path}", expected=expected, got=got, remedy="check the path")
        has_digest = _require_intact(Path(path), refused)
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise refused(f"a {type(content).__name__}")
    if not has_digest:
        _note_no_digest(str(path))
    return content


def _begins_as_archive(path: Path) -> bool:
    """Return whether a file may be an archive that was cut, if only before its first byte."""
    with path.open("rb") as stream:
        return _BEGIN.startswith(stream.read(len(_BEGIN)))


def _require_intact(path: Path, refused: Callable[[object], InputError]) -> bool:
    """Return whether there is a digest; refuse bytes that are not those that were written."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(-min(size, _END_BYTES + _COMMENT_BYTES), os.SEEK_END)
        ending = stream.read()
        if ending.endswith(b"\0" * _LENGTH_BYTES) and ending[-_END_BYTES:].startswith(_END):
            if zipfile.ZipFile(stream).testzip() is not None:
                raise refused("bytes that were altered after it was written")
            return False
        comment = ending[-_COMMENT_BYTES:]
        if not (ending.startswith(_END) and comment.startswith(_LABEL)):
            raise refused("no end of the file, which was altered or cut")
        if comment != _LABEL + _sha256(stream, size - _COMMENT_BYTES):
            raise refused("bytes that were altered after it was written")
        return True


def _sha256(stream: BinaryIO, num_bytes: int) -> bytes:
    """Return the hexadecimal digest of a file's first bytes."""
    digest = hashlib.sha256()
    stream.seek(0)
    while num_bytes > 0 and (block := stream.read(min(num_bytes, 1 << 20))):
        digest.update(block)
        num_bytes -= len(block)
    return digest.hexdigest().encode()


@cache
def _note_no_digest(path: str) -> None:
    """Say so once."""
    logger.warning("%s is of an earlier version, without a digest of its bytes", path)


def _failed_write(error: BaseException | None) -> OSError | None:
    """Return the error of the stream behind the one of torch about its own archive."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
