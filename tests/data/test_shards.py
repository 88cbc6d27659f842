from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.data.shards import (
    DatasetMetadata,
    ShardedDataset,
    completed_shard,
    missing_shards,
    write_shard,
)

METADATA = DatasetMetadata("molecule-a", {"z": "1", "positions": "nm"}, {"seed": 1})


def arrays(index: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    samples = 5 + index
    return {
        "z": rng.standard_normal((samples, 4)).astype(np.float32),
        "positions": rng.standard_normal((samples, 2, 3)),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        write_shard(tmp_path, index, arrays(index), METADATA)
    ShardedDataset.finish(tmp_path, 3, METADATA)
    return tmp_path


def test_data_come_back_as_they_were(folder: Path) -> None:
    dataset = ShardedDataset.open(folder, molecule="molecule-a")
    loaded = dataset.load()
    for key in METADATA.units:
        expected = np.concatenate([arrays(index)[key] for index in range(3)])
        assert loaded[key].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[key], expected)
    assert (dataset.num_samples, len(dataset)) == (18, 3)
    assert dataset.metadata == METADATA
    assert [len(shard["z"]) for shard in dataset] == [5, 6, 7]
    assert list(dataset.read(1, ["z"])) == ["z"]


def test_single_samples_are_read_from_the_shards_that_hold_them(folder: Path) -> None:
    dataset = ShardedDataset.open(folder)
    whole = dataset.load()["positions"]
    for samples in ([17, 0, 5, 4, 5, 11], [6, 7], [12], range(18)):
        np.testing.assert_array_equal(dataset.take("positions", np.array(samples)), whole[samples])
    (folder / "shard_00000.npz").unlink()
    np.testing.assert_array_equal(dataset.take("z", np.array([5])), arrays(1)["z"][:1])


def test_the_same_arrays_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    record = write_shard(tmp_path / "again", 1, arrays(1), METADATA)
    assert record == ShardedDataset.open(folder).shards[1]


def test_only_absent_and_damaged_shards_are_missing(folder: Path) -> None:
    assert missing_shards(folder, 3, METADATA) == []
    (folder / "shard_00000.npz").unlink()
    (folder / "shard_00002.json").write_text('{"torn')
    with (folder / "shard_00001.npz").open("r+b") as stream:
        stream.seek(200)
        stream.write(b"\xff\xff")
    assert missing_shards(folder, 5, METADATA) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 100, 500])
def test_a_truncated_shard_is_named(folder: Path, size: int) -> None:
    path = folder / "shard_00001.npz"
    path.write_bytes(path.read_bytes()[:size])
    dataset = ShardedDataset.open(folder)
    with pytest.raises(InputError, match=r"shard_00001\.npz.*delete the file"):
        dataset.load(["z"])
    dataset.read(0)
    with pytest.raises(InputError, match=r"shard_00001\.npz"):
        ShardedDataset.finish(folder, 3, METADATA)


def test_an_altered_shard_is_refused_although_it_reads_well(folder: Path) -> None:
    changed = arrays(2)
    changed["z"][0, 0] += 1
    np.savez(folder / "shard_00002.npz", **changed)
    with pytest.raises(InputError, match=r"shard_00002\.npz.*sha256"):
        ShardedDataset.open(folder).read(2)


@pytest.mark.parametrize(
    "other",
    [
        replace(METADATA, molecule="molecule-b"),
        replace(METADATA, provenance={"seed": 2}),
        replace(METADATA, units={"z": "1", "positions": "angstrom"}),
    ],
)
def test_shards_of_another_data_set_are_foreign(folder: Path, other: DatasetMetadata) -> None:
    with pytest.raises(InputError, match=r"shard_00000\.npz.*another output folder"):
        missing_shards(folder, 3, other)


def test_another_molecule_or_format_is_refused_at_opening(folder: Path) -> None:
    with pytest.raises(InputError, match="molecule molecule-b"):
        ShardedDataset.open(folder, molecule="molecule-b")
    manifest = folder / "manifest.json"
    write_json(manifest, read_json(manifest) | {"schema_version": 2})
    with pytest.raises(InputError, match="schema 1, got 2"):
        ShardedDataset.open(folder)
    manifest.write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="without its fields"):
        ShardedDataset.open(folder)
    manifest.unlink()
    with pytest.raises(InputError, match=r"manifest\.json"):
        ShardedDataset.open(folder)


def test_an_unknown_array_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="log_density"):
        ShardedDataset.open(folder).load(["log_density"])


def test_arrays_that_do_not_fit_together_are_not_written(tmp_path: Path) -> None:
    short = arrays(0)
    short["z"] = short["z"][:-1]
    for wrong in (short, {"z": arrays(0)["z"]}):
        with pytest.raises(ValueError, match="shard 0"):
            write_shard(tmp_path, 0, wrong, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_is_ever_taken_for_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(stream: object, **unused: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(InputError, match=r"shard_00000\.npz.*No space left"):
        write_shard(tmp_path, 0, arrays(0), METADATA)
    assert list(tmp_path.iterdir()) == []
    assert completed_shard(tmp_path, 0, METADATA) is None


def test_concurrent_writers_of_one_shard_leave_one_whole_shard(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_shard(tmp_path, 0, arrays(0), METADATA), range(40)))
    dataset = ShardedDataset.finish(tmp_path, 1, METADATA)
    np.testing.assert_array_equal(dataset.load()["z"], arrays(0)["z"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "shard_00000.json",
        "shard_00000.npz",
    ]
