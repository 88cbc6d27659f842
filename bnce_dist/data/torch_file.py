"""Files that ``torch.load`` reads."""

from pathlib import Path
from typing import Any

import torch

from bnce_dist.data.atomic import atomic_path


def write_torch(path: str | Path, content: dict[str, Any]) -> None:
    """Write plain types and tensors, atomically.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    # Given a path, torch writes it itself and never says that the disk is full.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            raise _failed_write(error) or error from None


def _failed_write(error: BaseException | None) -> OSError | None:
    """Return the error of the stream behind the one of torch about its own archive."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
