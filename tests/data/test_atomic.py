"""JSON that was altered after it was written is told."""

import json
from pathlib import Path

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json, write_json

CONTENT = {"delta_f_kT": 3.8443529997120103, "seed": 7, "nested": {"b": [1, 2.5], "a": None}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    for content in (CONTENT, [1, {"sha256": "x"}], {}, {"a": (1, 2)}):
        write_json(tmp_path / "a.json", content)
        assert read_json(tmp_path / "a.json") == json.loads(json.dumps(content))


def test_a_file_without_a_digest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    assert read_json(tmp_path / "a.json") == CONTENT


def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    whole, told = path.read_bytes(), set()
    for where in range(8 * len(whole)):
        data = bytearray(whole)
        data[where // 8] ^= 1 << where % 8
        path.write_bytes(data)
        try:
            assert read_json(path) == CONTENT, where
        except InputError as error:
            told.add((where, str(error).startswith(f"file {path}: expected JSON as it was")))
    assert all(one_line for _, one_line in told)
    assert len(told) > 0.8 * 8 * len(whole)


def test_every_deletion_is_told_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    whole, num_told = path.read_bytes(), 0
    for start in range(len(whole)):
        for end in range(start + 1, len(whole) + 1):
            path.write_bytes(whole[:start] + whole[end:])
            try:
                assert read_json(path) == CONTENT, (start, end)
            except InputError:
                num_told += 1
    assert num_told > 0.98 * len(whole) * (len(whole) + 1) / 2


@pytest.mark.parametrize("text", ["", "[" * 100_000, "1" * 5000, '{"a": ', "\xff", '{"a": 1}}'])
def test_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(InputError, match="expected JSON as it was written"):
            read_json(path)
