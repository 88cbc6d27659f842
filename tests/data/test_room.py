from pathlib import Path

import pytest

from bnce_dist.data import room


def test_a_container_that_has_read_much_still_has_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 MB in use 80 are files that the system kept in case they are read again."""
    mb = 2**20
    (tmp_path / "memory.max").write_text(f"{120 * mb}\n")
    (tmp_path / "memory.current").write_text(f"{100 * mb}\n")
    (tmp_path / "memory.stat").write_text(f"anon {15 * mb}\ninactive_file {80 * mb}\nslab {mb}\n")
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert room.available_memory() == 100 * mb


def test_a_container_without_a_limit_has_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert (room.available_memory() or 0) > 2**20
