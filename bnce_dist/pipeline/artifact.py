"""The folder a stage leaves behind: finished and intact, or to be continued, or in the way."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import file_sha256, read_json, write_json
from bnce_dist.data.shards import MANIFEST, ShardedDataset, is_side_car

SCHEMA_VERSION = 1
RECORD = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """One stage's folder and the key that says which work belongs in it.

    The record ``artifact.json`` is written with the key when work starts and again, with the
    checksum of every file, when it ends. So a folder is finished exactly if its record lists
    files and they are all as listed.

    Args:
        folder: Where the stage writes.
        key: Digest of everything the content depends on.
    """

    folder: Path
    key: str

    @staticmethod
    def is_declared_finished(folder: Path) -> bool:
        """Return whether somebody's work in the folder ended, without looking at its files."""
        return "files" in Artifact(folder, key="")._record()

    @classmethod
    def finished(cls, folder: Path) -> "Artifact":
        """Return the finished work in a folder, whatever its key.

        Raises: InputError: there is none.
        """
        if not cls.is_declared_finished(folder):
            raise InputError(
                f"work in {folder}",
                expected="a finished stage",
                got="none",
                remedy="run it first",
            )
        return cls(folder, read_json(folder / RECORD)["key"])

    def is_finished(self) -> bool:
        """Return whether the folder holds this key's finished work, every byte as written."""
        files = self._record().get("files")
        return files is not None and self.has_key() and not any(self._altered(files))

    def require_intact(self, part: str = "") -> None:
        """Check that the finished content is what the stage wrote.

        Args:
            part: Only files whose path in the folder starts with this.

        Raises: InputError: a file is absent or altered.
        """
        for path in self._altered(self._files(part)):
            raise InputError(
                f"file {path}",
                expected="the one that its stage wrote",
                got="other bytes" if path.is_file() else "none",
                remedy="put it back, or repeat the command of its run, which makes the stage anew",
            )

    def prepare(self, superseded: Path) -> None:
        """Make the folder ready for work: unfinished work of the same key stays in it.

        Args:
            superseded: Folder that anything else found here is moved into; nothing is deleted.

        Raises: InputError: the folder cannot be written.
        """
        if not (self.has_key() and "files" not in self._record()) and self.folder.exists():
            move_aside(self.folder, superseded)
        write_json(self.folder / RECORD, {"schema_version": SCHEMA_VERSION, "key": self.key})

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Declare the work finished.

        Args:
            provenance: How it came about (config, versions, seconds...), as plain JSON.
        """
        record = {"schema_version": SCHEMA_VERSION, "key": self.key, "provenance": provenance}
        write_json(self.folder / RECORD, record | {"files": self._checksums()})

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What `finish` was told."""
        return read_json(self.folder / RECORD)["provenance"]

    def digest(self, part: str = "") -> str:
        """Return a digest of the finished content.

        The labels of data sets hold the key of their stage, which changes with every setting of it:
        of those only what the arrays are counts.

        Args:
            part: Only files whose path in the folder starts with this.
        """
        files = self._files(part)
        content: dict[str, Any] = {}
        for name in files:
            if PurePosixPath(name).name == MANIFEST:
                data = ShardedDataset.open((self.folder / name).parent).metadata
                content[name] = [data.molecule, dict(data.units)]
            elif not is_side_car(name):
                content[name] = files[name]
        return digest_of(content)

    def digest_with_labels(self, part: str = "") -> str:
        """Return the digest by which earlier versions made their keys."""
        return digest_of(self._files(part))

    def has_key(self) -> bool:
        """Return whether work of this key was begun or finished in the folder."""
        record = self._record()
        return record.get("schema_version") == SCHEMA_VERSION and record.get("key") == self.key

    def _record(self) -> dict[str, Any]:
        try:
            record = read_json(self.folder / RECORD)
        except InputError:
            return {}
        return record if isinstance(record, dict) else {}

    def _files(self, part: str) -> dict[str, str]:
        files = read_json(self.folder / RECORD)["files"]
        return {name: files[name] for name in files if name.startswith(part)}

    def _altered(self, files: Mapping[str, str]) -> Iterator[Path]:
        """Yield the paths of files that are absent or not as listed."""
        for name, sha256 in files.items():
            path = self.folder / name
            if not path.is_file() or file_sha256(path) != sha256:
                yield path

    def _checksums(self) -> dict[str, str]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {
            path.relative_to(self.folder).as_posix(): file_sha256(path)
            for path in paths
            if path != self.folder / RECORD
        }


def digest_of(content: Any) -> str:
    """Return the hexadecimal SHA-256 of plain data, whatever the order of its mappings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def move_aside(path: Path, superseded: Path) -> Path:
    """Move a file or folder into a folder of such, under a free name there, which is returned."""
    superseded.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := superseded / f"{path.stem}-{number}{path.suffix}").exists():
        number += 1
    path.rename(target)
    return target
