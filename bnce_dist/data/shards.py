"""Data sets as a folder of shards: each written whole or not at all, and exactly once.

A shard is an uncompressed ``.npz`` of arrays with the samples along the first axis, and a side
car ``.json`` with its checksum. The side car is written last, so a shard that has one is
complete. Any number of processes may write shards of one folder; when all are there, one
process writes ``manifest.json``, and the folder is a data set.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.data.atomic import atomic_path, file_sha256, read_json, write_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

ShardWorker = Callable[[int], Mapping[str, np.ndarray]]
"""Computes the arrays of one shard from its index alone (draws keyed by seed and index)."""


@dataclass(frozen=True)
class DatasetMetadata:
    """What the arrays mean and what they were made from.

    Args:
        molecule: Identity of the molecule (``Molecule.identity``).
        units: Unit of every array by its name; ``"1"`` where there is none.
        provenance: Whatever else decides the contents (seed, configuration, inputs), as plain
            JSON. Shards with another provenance are foreign.
    """

    molecule: str
    units: Mapping[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content as it comes back from a JSON file."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class ShardRecord:
    """What is known about one complete shard without opening it."""

    index: int
    num_samples: int
    sha256: str

    @property
    def file(self) -> str:
        """Name of the shard's file inside the data set's folder."""
        return _shard_name(self.index)


def write_shard(
    folder: str | Path, index: int, arrays: Mapping[str, np.ndarray], metadata: DatasetMetadata
) -> ShardRecord:
    """Write one shard, then its side car, each atomically.

    Args:
        folder: The data set's folder.
        index: The shard's place in the data set.
        arrays: Equally many samples along the first axis of each.
        metadata: The same for every shard of the folder.

    Raises:
        ValueError: names differ from ``metadata.units``, or the lengths differ.
        InputError: the folder cannot be written.
    """
    lengths = {len(array) for array in arrays.values()}
    if set(arrays) != set(metadata.units) or len(lengths) != 1:
        shapes = {key: array.shape for key, array in arrays.items()}
        raise ValueError(
            f"shard {index}: expected equally long {set(metadata.units)}, got {shapes}"
        )
    path = Path(folder) / _shard_name(index)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    record = ShardRecord(index, lengths.pop(), file_sha256(path))
    write_json(_side_car(path), _describe(metadata) | {"shard": asdict(record)})
    return record


def completed_shard(
    folder: str | Path, index: int, metadata: DatasetMetadata
) -> ShardRecord | None:
    """Return the record of a shard that is complete and intact, else ``None`` (make it again).

    Raises: InputError: the shard belongs to another data set.
    """
    path = Path(folder) / _shard_name(index)
    try:
        content = read_json(_side_car(path))
        record = ShardRecord(**content["shard"])
    except (InputError, KeyError, TypeError):
        return None
    _require_same(path, _describe(metadata), content)
    intact = path.exists() and file_sha256(path) == record.sha256
    return record if intact else None


def missing_shards(folder: str | Path, num_shards: int, metadata: DatasetMetadata) -> list[int]:
    """Return which of the shards ``0 .. num_shards - 1`` are still to be made.

    Raises: InputError: a shard belongs to another data set.
    """
    return [i for i in range(num_shards) if completed_shard(folder, i, metadata) is None]


def fill_shards(
    folder: str | Path,
    sizes: Sequence[int],
    worker: ShardWorker,
    metadata: DatasetMetadata,
    show: Callable[[int], None],
) -> "ShardedDataset":
    """Write the shards that are missing, or of another size, one after the other.

    Args:
        folder: The data set's folder.
        sizes: Samples of each shard.
        worker: Computes a shard; called with rising indices, and not for those that are there.
        metadata: Of the data set.
        show: Called with the number of samples there are.

    Raises: InputError: a shard belongs to another data set, or the folder cannot be written.
    """
    for index, size in enumerate(sizes):
        record = completed_shard(folder, index, metadata)
        if record is None or record.num_samples != size:
            write_shard(folder, index, worker(index), metadata)
        show(sum(sizes[: index + 1]))
    return ShardedDataset.finish(folder, len(sizes), metadata)


class ShardedDataset:
    """A finished folder of shards.

    Args:
        folder: Where it lies.
        metadata: What the arrays mean.
        shards: Records in the order of the shards.
    """

    def __init__(
        self, folder: Path, metadata: DatasetMetadata, shards: Iterable[ShardRecord]
    ) -> None:
        self.folder, self.metadata, self.shards = folder, metadata, tuple(shards)

    @classmethod
    def finish(
        cls, folder: str | Path, num_shards: int, metadata: DatasetMetadata
    ) -> "ShardedDataset":
        """Write the manifest over shards ``0 .. num_shards - 1`` and open the data set.

        Raises: InputError: a shard is missing, torn or foreign.
        """
        folder = Path(folder)
        records = []
        for index in range(num_shards):
            record = completed_shard(folder, index, metadata)
            if record is None:
                raise _damaged(folder / _shard_name(index), "no complete shard")
            records.append(record)
        manifest = _describe(metadata) | {"shards": [asdict(record) for record in records]}
        write_json(folder / MANIFEST, manifest)
        for leftover in folder.glob(".shard_*.part"):
            leftover.unlink(missing_ok=True)  # of a writer that was killed
        return cls(folder, metadata, records)

    @classmethod
    def open(cls, folder: str | Path, *, molecule: str | None = None) -> "ShardedDataset":
        """Open a finished data set.

        Args:
            folder: Where ``manifest.json`` lies.
            molecule: If given, the identity the data must have.

        Raises: InputError: no manifest, another format, or another molecule's data.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        content = read_json(path)
        with as_input_error(lambda got: _damaged(path, f"a manifest without its fields ({got})")):
            if content["schema_version"] != SCHEMA_VERSION:
                raise _foreign(path, f"schema {SCHEMA_VERSION}", content["schema_version"])
            metadata = DatasetMetadata(**content["metadata"])
            records = [ShardRecord(**record) for record in content["shards"]]
        if molecule not in (None, metadata.molecule):
            raise _foreign(path, f"molecule {molecule}", f"molecule {metadata.molecule}")
        return cls(folder, metadata, records)

    @property
    def num_samples(self) -> int:
        """Samples in all shards together."""
        return sum(record.num_samples for record in self.shards)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.shards)

    def read(self, index: int, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Return the arrays of one shard, after checking its bytes.

        Args:
            index: Which shard.
            keys: Names of the arrays; all by default.

        Raises: InputError: the shard is absent, truncated or altered, or lacks a key.
        """
        record = self.shards[index]
        path = self.folder / record.file
        if not path.exists():
            raise _damaged(path, "nothing")
        if file_sha256(path) != record.sha256:
            raise _damaged(path, f"other bytes than the manifest's sha256 {record.sha256[:12]}")
        names = list(self.metadata.units if keys is None else keys)
        unknown = set(names) - set(self.metadata.units)
        if unknown:
            raise _foreign(path, f"arrays {sorted(unknown)}", f"{sorted(self.metadata.units)}")
        with (
            as_input_error(lambda got: _damaged(path, str(got))),
            np.load(path, allow_pickle=False) as shard,
        ):
            return {name: shard[name] for name in names}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Read the shards one after another, so that only one is in memory."""
        return (self.read(index) for index in range(len(self)))

    def stream(self, key: str) -> Iterator[np.ndarray]:
        """Read one array shard after shard, so that only one is in memory."""
        return (self.read(index, [key])[key] for index in range(len(self)))

    def take(self, key: str, samples: np.ndarray) -> np.ndarray:
        """Return some samples of one array, of which only one shard is in memory at a time.

        Args:
            key: Name of the array.
            samples: Their places in the data set, at least one, in any order.

        Raises: InputError: as ``read``.
        """
        # A sample's place counted from the end of its shard is negative, as numpy has it.
        ends = np.cumsum([record.num_samples for record in self.shards])
        order = np.argsort(samples, kind="stable")
        ordered = samples[order]
        shards, first = np.unique(np.searchsorted(ends, ordered, "right"), return_index=True)
        parts = [
            self.read(index, [key])[key][places - ends[index]]
            for index, places in zip(shards, np.split(ordered, first[1:]), strict=True)
        ]
        return np.concatenate(parts)[np.argsort(order)]

    def load(self, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Return the arrays of all shards, joined in their order.

        Raises: InputError: as ``read``.
        """
        names = list(self.metadata.units if keys is None else keys)
        shards = [self.read(index, names) for index in range(len(self))]
        return {name: np.concatenate([shard[name] for shard in shards]) for name in names}


def is_side_car(name: str | Path) -> bool:
    """Return whether a file is the label of a shard, by its name."""
    return Path(name).match("shard_[0-9]*.json")


def _shard_name(index: int) -> str:
    return f"shard_{index:05d}.npz"


def _side_car(path: Path) -> Path:
    return path.with_suffix(".json")


def _describe(metadata: DatasetMetadata) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "metadata": metadata.to_json()}


def _require_same(path: Path, expected: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if content.get(key) != value:
            raise _foreign(path, f"{key} {value}", f"{key} {content.get(key)}")


def _damaged(path: Path, got: str) -> InputError:
    return InputError(
        f"data {path}",
        expected="a complete, unaltered file",
        got=got,
        remedy="delete the file and run the stage that writes it again",
    )


def _foreign(path: Path, expected: object, got: object) -> InputError:
    return InputError(
        f"data {path}",
        expected=expected,
        got=got,
        remedy="use another output folder, or delete this one to make the data again",
    )
