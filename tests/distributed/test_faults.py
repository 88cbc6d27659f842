"""Full disks, a full object store, a slow actor; test_disturbed has what happens to trainings."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.distributed.pool import map_shards

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])

METADATA = DatasetMetadata("molecule-a", {"x": "1"})
NUM_SHARDS = 8


@pytest.fixture
def disk(tmp_path: Path, mount_disk: Callable[[Path], bool]) -> Path:
    """A disk of 4 MB."""
    if not mount_disk(tmp_path / "disk"):
        pytest.skip("this user may not mount a file system")
    return tmp_path / "disk"


class Numbers:
    """Shards of 0.8 MB; notes in a folder which of them it made."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        (self.journal / f"{index}-{time.monotonic_ns()}").touch()
        return {"x": np.random.default_rng(index).standard_normal(100_000)}


@pytest.mark.usefixtures("two_cpus")
def test_shards_that_were_finished_before_the_disk_was_full_are_kept(
    tmp_path: Path, disk: Path
) -> None:
    journal, folder = tmp_path / "journal", disk / "shards"
    journal.mkdir()
    write = partial(
        map_shards, partial(Numbers, journal), NUM_SHARDS, folder,
        metadata=METADATA, label="fill", num_actors=2,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"cannot write \S*shard_\S* expected .* No space left"):
        write()
    kept = {path.stem for path in folder.glob("*.json")}
    assert 0 < len(kept) < NUM_SHARDS

    for path in journal.iterdir():
        path.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    dataset = write()
    made = {f"shard_{int(path.name.split('-')[0]):05d}" for path in journal.iterdir()}
    assert made == {f"shard_{index:05d}" for index in range(NUM_SHARDS)} - kept
    for index, arrays in enumerate(dataset):
        np.testing.assert_array_equal(arrays["x"], Numbers(journal)(index)["x"])
    assert list(disk.rglob("*.part")) == []


class Straggler(Numbers):
    """The first that is built finishes its first shard when all others are there."""

    def __init__(self, journal: Path) -> None:
        super().__init__(journal)
        try:
            (journal.parent / "straggler").touch(exist_ok=False)
            self.others = NUM_SHARDS - 1
        except FileExistsError:
            self.others = 0

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        deadline = time.monotonic() + 60
        while len(list(self.journal.iterdir())) < self.others and time.monotonic() < deadline:
            time.sleep(0.05)
        (self.journal / f"{index}-{os.getpid()}").touch()
        return {"x": np.full(1, index)}


@pytest.mark.usefixtures("two_cpus")
def test_a_slow_actor_holds_nobody_back(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    map_shards(
        partial(Straggler, journal), NUM_SHARDS, tmp_path / "shards",
        metadata=METADATA, label="straggle", num_actors=2,
    )  # fmt: skip
    by_actor = Counter(path.name.split("-")[1] for path in journal.iterdir())
    assert sorted(by_actor.values()) == [1, NUM_SHARDS - 1]


# Doubles five arrays of 40 MB and one of 120 MB in an object store of 80 MB.
SMALL_STORE = """
import json, sys
import numpy as np, ray
from bnce_dist.core.errors import InputError
from bnce_dist.distributed.tasks import map_to_outcomes
ray.init(
    num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False,
    _system_config={"local_fs_capacity_threshold": float(sys.argv[1])},
)
arrays = [np.full(size, i, float) for i, size in enumerate([5_000_000] * 5 + [15_000_000])]
try:
    doubled = map_to_outcomes(
        lambda array: 2 * array, arrays, options={"num_cpus": 1}, max_concurrent=2
    )
    for array in doubled:
        if isinstance(array, InputError):
            raise array
    print(json.dumps([[len(array), array.min(), array.max()] for array in doubled]))
except InputError as error:
    print(json.dumps(str(error)))
"""


def use_small_store(disk_threshold: float) -> object:
    """Return what the script says; Ray takes a disk used to more than the threshold as full."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SMALL_STORE, str(disk_threshold)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_more_than_the_object_store_holds_goes_through_the_disk() -> None:
    lengths = [5_000_000] * 5 + [15_000_000]
    assert use_small_store(1.0) == [[n, 2.0 * i, 2.0 * i] for i, n in enumerate(lengths)]


@pytest.mark.slow
def test_a_full_object_store_on_a_full_disk_is_one_line() -> None:
    line = use_small_store(0.0)
    assert isinstance(line, str)
    assert line.startswith("object store of the Ray cluster: expected room in memory")
