from pathlib import Path

import pytest

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.require_space(1)
    return folder


def test_a_new_folder_takes_any_run(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new").require_same_run(Config())


def test_the_same_configuration_continues(folder: RunFolder) -> None:
    folder.write_config(Config())
    folder.require_same_run(Config())


def test_cluster_and_tracking_may_change(folder: RunFolder) -> None:
    folder.write_config(Config())
    folder.require_same_run(
        load_config(Config, None, ["cluster.num_workers=3", "tracking.backend=none"])
    )


def test_another_configuration_is_named(folder: RunFolder) -> None:
    folder.write_config(Config())
    with pytest.raises(InputError, match=r"energy\.width=256.*--name.*--resume"):
        folder.require_same_run(load_config(Config, None, ["energy.width=64"]))


def test_a_full_disk_is_seen_before_anything_starts(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="of free space"):
        folder.require_space(10**18)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        RunFolder(tmp_path / "file" / "run").require_space(1)


def test_one_at_a_time(folder: RunFolder) -> None:
    # The kernel's lock belongs to the open file, so a second opening stands for a process.
    with folder.lock(), pytest.raises(InputError, match="another one at work"), folder.lock():
        pass
    with folder.lock():
        pass


def test_what_a_killed_writer_left_is_removed_and_nothing_else(folder: RunFolder) -> None:
    written = folder.stage("evaluate") / "shard_00000.npz"
    with atomic_path(written) as temporary:
        temporary.write_bytes(b"whole")
    temporary.write_bytes(b"ha")  # as of a process that was killed before it renamed
    with folder.lock():
        assert list(written.parent.iterdir()) == [written]
    assert written.read_bytes() == b"whole"
