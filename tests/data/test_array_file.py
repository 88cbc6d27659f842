import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bnce_dist.data.array_file import write_rows
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard


def parts(num_parts: int, num_rows: int = 1000) -> Iterator[np.ndarray]:
    for seed in range(num_parts):
        yield np.random.default_rng(seed).standard_normal((num_rows + seed % 3, 8), np.float32)


@pytest.mark.parametrize("num_parts", [1, 2, 1000])
def test_rows_read_as_numpy_would_have_written_them(tmp_path: Path, num_parts: int) -> None:
    rows = list(parts(num_parts, num_rows=20))
    write_rows(tmp_path / "z.npy", iter(rows))
    np.save(tmp_path / "expected.npy", np.concatenate(rows))
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_parts_in_another_memory_order_are_the_same_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "z.npy", [np.asfortranarray(part) for part in parts(3)])
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), np.concatenate(list(parts(3))))


def peak_bytes(dataset: ShardedDataset, path: Path) -> int:
    tracemalloc.start()
    write_rows(path, dataset.stream("z"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    metadata = DatasetMetadata("molecule-a", {"z": "1"})
    for index, z in enumerate(parts(40, num_rows=10_000)):
        write_shard(tmp_path, index, {"z": z}, metadata)
    few, many = (ShardedDataset.finish(tmp_path, count, metadata) for count in (4, 40))
    one_shard = 10_000 * 8 * 4
    peak_of_few = peak_bytes(few, tmp_path / "few.npy")
    assert peak_of_few < 4 * one_shard, "the data themselves"
    assert peak_bytes(many, tmp_path / "many.npy") < peak_of_few + one_shard
    assert len(np.load(tmp_path / "many.npy", mmap_mode="r")) == many.num_samples


def test_nothing_is_left_of_parts_that_differ(tmp_path: Path) -> None:
    for wrong in (np.zeros((2, 7), np.float32), np.zeros((2, 8))):
        with pytest.raises(ValueError, match="expected rows float32"):
            write_rows(tmp_path / "z.npy", [np.zeros((2, 8), np.float32), wrong])
    with pytest.raises(ValueError, match="at least one array"):
        write_rows(tmp_path / "z.npy", [])
    assert list(tmp_path.iterdir()) == []
