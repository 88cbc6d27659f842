import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import cloudpickle

from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.pool import map_shards
from bnce_dist.pipeline.executor import LocalExecutor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_cpus")]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

METADATA = DatasetMetadata("molecule-a", {"z": "1", "log_density": "1"}, {"seed": 7})


class Sampler:
    """Stands for models that are slow to build; notes in a folder what it does."""

    def __init__(self, journal: Path, pause_seconds: float = 0.0) -> None:
        self.journal, self.pause_seconds = journal, pause_seconds
        journal.mkdir(exist_ok=True)
        (journal / f"built-{os.getpid()}").touch()

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        running = self.journal / f"running-{index}-{os.getpid()}"
        running.touch()
        time.sleep(self.pause_seconds)
        z = np.random.default_rng([7, index]).standard_normal(4, np.float32)
        running.rename(self.journal / f"done-{index}-{os.getpid()}")
        return {"z": z, "log_density": -0.5 * z**2}


class Refusing:
    def __call__(self, index: int) -> dict[str, np.ndarray]:
        raise InputError(f"shard {index}", expected="a sample", got="NaN", remedy="train longer")


def refuse_to_build() -> Sampler:
    raise InputError("model", expected="a checkpoint", got="nothing", remedy="train it first")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    make_worker = partial(Sampler, tmp_path / "local-journal")
    LocalExecutor().map_shards(
        make_worker, 6, tmp_path / "local", metadata=METADATA, label="sample"
    )
    return contents(tmp_path / "local")


def test_actors_write_what_one_process_writes_and_only_what_is_missing(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder, journal = tmp_path / "shards", tmp_path / "journal"
    write_shard(folder, 4, Sampler(tmp_path / "early")(4), METADATA)
    dataset = RayExecutor(2).map_shards(
        partial(Sampler, journal), 6, folder, metadata=METADATA, label="sample"
    )
    assert contents(folder) == expected
    assert dataset.num_samples == 24
    done = sorted(int(path.name.split("-")[1]) for path in journal.glob("done-*"))
    assert done == [0, 1, 2, 3, 5], "shard 4 was there"
    assert len(list(journal.glob("built-*"))) <= 2, "models are built once per actor"

    RayExecutor(2).map_shards(
        partial(Sampler, tmp_path / "unused"), 6, folder, metadata=METADATA, label="sample"
    )
    assert not (tmp_path / "unused").exists(), "nothing was left to do"


@pytest.fixture
def killer(tmp_path: Path) -> Iterator[list[int]]:
    """Kills the first two actors that are seen in the middle of a shard."""
    journal, killed = tmp_path / "journal", []

    def watch() -> None:
        deadline = time.monotonic() + 120
        while len(killed) < 2 and time.monotonic() < deadline:
            for path in journal.glob("running-*"):
                pid = int(path.name.split("-")[2])
                if pid not in killed and len(killed) < 2:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    path.unlink()
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        yield killed


def test_actors_killed_in_the_middle_of_a_shard_change_nothing(
    tmp_path: Path, expected: dict[str, bytes], killer: list[int]
) -> None:
    folder = tmp_path / "shards"
    make_worker = partial(Sampler, tmp_path / "journal", pause_seconds=0.3)
    map_shards(make_worker, 6, folder, metadata=METADATA, label="sample", num_actors=2)
    assert len(killer) == 2
    assert contents(folder) == expected


def test_no_shard_waits_for_an_actor_whose_core_somebody_else_keeps(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    other = RayExecutor(1)
    make_other = partial(Sampler, tmp_path / "other-journal")
    other.map_shards(make_other, 1, tmp_path / "other", metadata=METADATA, label="sample")
    make_worker = partial(Sampler, tmp_path / "journal")
    folder = tmp_path / "shards"
    map_shards(make_worker, 6, folder, metadata=METADATA, label="sample", num_actors=2)
    assert contents(folder) == expected
    assert len(list((tmp_path / "journal").glob("built-*"))) == 1, "there is one core left"
    other.release()


@pytest.mark.parametrize(
    ("make_worker", "message"),
    [
        (Refusing, "shard 0: expected a sample, got NaN; train longer"),
        (refuse_to_build, "model: expected a checkpoint, got nothing; train it first"),
    ],
)
def test_an_input_error_arrives_as_one_line(
    tmp_path: Path, make_worker: type, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        map_shards(make_worker, 1, tmp_path, metadata=METADATA, label="sample", num_actors=2)
    assert str(caught.value) == message
    # The error is still held, and with it all that its traceback refers to.
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, "the actor left its core"
        time.sleep(0.1)


def test_foreign_shards_are_refused_and_left_alone(tmp_path: Path) -> None:
    other = DatasetMetadata("molecule-b", METADATA.units, METADATA.provenance)
    write_shard(tmp_path, 0, Sampler(tmp_path.parent / "other")(0), other)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="another output folder"):
        map_shards(Refusing, 2, tmp_path, metadata=METADATA, label="sample", num_actors=1)
    assert contents(tmp_path) == before


def test_a_data_set_can_grow(tmp_path: Path) -> None:
    make_worker = partial(Sampler, tmp_path / "journal")
    for num_shards in (2, 4):
        LocalExecutor().map_shards(
            make_worker, num_shards, tmp_path / "shards", metadata=METADATA, label="sample"
        )
    assert len(ShardedDataset.open(tmp_path / "shards")) == 4
    assert len(list((tmp_path / "journal").glob("done-*"))) == 4


def pids(journal: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in journal.glob("built-*")}


def test_actors_stay_for_the_next_data_set_until_they_are_released(tmp_path: Path) -> None:
    executor = RayExecutor(2)
    for name in ("first", "second"):
        make_worker = partial(Sampler, tmp_path / f"{name}-journal", pause_seconds=0.2)
        dataset = executor.map_shards(
            make_worker, 4, tmp_path / name, metadata=METADATA, label="sample"
        )
        assert dataset.num_samples == 16
    processes = pids(tmp_path / "first-journal")
    assert pids(tmp_path / "second-journal") == processes, "new models in the same processes"

    # Two cores are taken; what needs one gets it.
    assert executor.map_jobs(twice, [3]) == [6]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, "the actors ended"
        time.sleep(0.1)


def test_a_data_set_that_failed_leaves_a_pool_that_works(tmp_path: Path) -> None:
    executor = RayExecutor(2)
    with pytest.raises(InputError, match="train longer"):
        executor.map_shards(Refusing, 2, tmp_path / "bad", metadata=METADATA, label="sample")
    make_worker = partial(Sampler, tmp_path / "journal")
    executor.map_shards(make_worker, 2, tmp_path / "good", metadata=METADATA, label="sample")
    executor.release()


def twice(number: int, _: object) -> int:
    return 2 * number
