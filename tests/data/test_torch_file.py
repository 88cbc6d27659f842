"""Damage to a file of tensors is told, old files are read, and no code runs."""

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.data.torch_file import read_torch, write_torch

CONTENT = {"kind": "test", "weights": {"a": torch.arange(5000.0), "b": torch.ones(3)}}
PAGE = 4096


def read(path: Path) -> dict:
    return read_torch(path, "model", expected="a model", remedy="write it again")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_torch(tmp_path / "m.pt", CONTENT)
    return tmp_path / "m.pt"


def test_what_was_written_is_read_also_by_torch_and_as_an_archive(path: Path) -> None:
    for content in (read(path), torch.load(path, weights_only=True)):
        assert content["kind"] == "test"
        torch.testing.assert_close(content["weights"], CONTENT["weights"], rtol=0, atol=0)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"\nbnce_dist sha256 ")


def flip(data: bytearray, where: int) -> None:
    data[where] ^= 1 << where % 8


def zero(data: bytearray, where: int) -> None:
    start = where // PAGE * PAGE
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))


def cut(data: bytearray, where: int) -> None:
    del data[where:]


def lengthen(data: bytearray, where: int) -> None:
    data += bytes(where % 500 + 1)


@pytest.mark.parametrize("damage", [flip, zero, cut, lengthen])
def test_every_damage_is_told(path: Path, damage: Callable[[bytearray, int], None]) -> None:
    whole = path.read_bytes()
    # All of the end, where a file says whether it has a digest, and places all over the rest.
    places = {*range(len(whole) - 130, len(whole)), *range(0, len(whole), 151)}
    for where in places:
        data = bytearray(whole)
        damage(data, where)
        if data == whole:
            continue
        path.write_bytes(data)
        with pytest.raises(InputError) as refused:
            read(path)
        assert f"model {path}: expected a model, got " in str(refused.value)


@pytest.mark.parametrize("content", [b"# A README", b"\0" * 300])
def test_what_was_never_such_a_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(InputError, match="got a file of another kind; check the path"):
        read(path)
    with pytest.raises(InputError, match="got a folder; check the path"):
        read(tmp_path)


def test_an_earlier_file_is_read_with_one_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.pt"
    torch.save(CONTENT, path)
    with caplog.at_level(logging.WARNING, "bnce_dist"):
        for _ in range(3):
            assert read(path)["kind"] == "test"
    assert [record.message for record in caplog.records] == [
        f"{path} is of an earlier version, without a digest of its bytes"
    ]


def test_altered_numbers_of_an_earlier_file_are_told_too(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(CONTENT, path)
    whole = path.read_bytes()
    start = whole.index(np.arange(5000, dtype=np.float32).tobytes())
    for where in range(start, start + 4 * 5000, 397):
        data = bytearray(whole)
        flip(data, where)
        path.write_bytes(data)
        with pytest.raises(InputError, match="altered"):
            read(path)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    write_torch(tmp_path / "m.pt", {"kind": Payload(tmp_path / "proof")})
    with pytest.raises(InputError, match=r"model .*m\.pt: expected a model"):
        read(tmp_path / "m.pt")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"text", bytes(100)])
def test_other_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    for path in (tmp_path / "m.pt", tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(InputError, match="expected a model"):
            read(path)


def test_a_path_that_cannot_be_looked_at_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"^model x+\.pt: expected a model, got (.*[Nn]ame too long|no such)"
    ):
        read(Path(300 * "x" + ".pt"))
