"""Arrays too large for memory, written in parts: a ``.npy`` to be mapped, or an ``.npz``."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from bnce_dist.data.atomic import atomic_path


def write_rows(path: str | Path, parts: Iterable[np.ndarray]) -> None:
    """Write the rows of many arrays as one array, without ever holding all of them.

    Args:
        path: The ``.npy`` file; it appears when it is whole.
        parts: At least one, alike but for their number of rows.

    Raises:
        ValueError: no parts, or parts that differ.
        InputError: the file cannot be written.
    """
    num_rows, row = 0, None
    # Not through a memory map: on a full disk that ends the process by a signal.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for part in parts:
            if row is None:
                row = np.empty_like(part, shape=part.shape[1:])
                _write_header(stream, row, num_rows)
            if (part.dtype, part.shape[1:]) != (row.dtype, row.shape):
                got = f"{part.dtype} {part.shape[1:]}"
                raise ValueError(f"{path}: expected rows {row.dtype} {row.shape}, got {got}")
            stream.write(np.ascontiguousarray(part).data)
            num_rows += len(part)
        if row is None:
            raise ValueError(f"{path}: expected at least one array, got none")
        stream.seek(0)
        _write_header(stream, row, num_rows)


def write_archive(
    path: str | Path,
    columns: Mapping[str, Iterable[np.ndarray]],
    num_rows: int,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write an ``.npz`` as ``numpy.savez`` does, its long arrays in parts.

    Args:
        path: The file; it appears when it is whole.
        columns: Of each long array, its rows in parts that are alike, at least one.
        num_rows: Of each of them.
        arrays: The others.

    Raises: InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, parts in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                for index, part in enumerate(parts):
                    if index == 0:
                        _write_header(entry, np.empty_like(part, shape=part.shape[1:]), num_rows)
                    entry.write(np.ascontiguousarray(part).data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_header(stream: IO[bytes], row: np.ndarray, num_rows: int) -> None:
    """Write numpy's header, which has the same length for every number of rows."""
    header = {
        "descr": np.lib.format.dtype_to_descr(row.dtype),
        "fortran_order": False,
        "shape": (num_rows, *row.shape),
    }
    np.lib.format.write_array_header_1_0(stream, header)
