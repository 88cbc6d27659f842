"""What a user sees while nothing seems to happen, and what ends a pool that gets nowhere."""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.actor import ActorHandle

from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata, completed_shard
from bnce_dist.distributed import pool, tasks, waiting
from bnce_dist.distributed.cluster import one_line_errors
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.pool import map_shards
from bnce_dist.distributed.tasks import map_to_outcomes
from bnce_dist.pipeline.executor import Executor
from bnce_dist.training import progress
from bnce_dist.training.progress import report_part

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_cpus")]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

METADATA = DatasetMetadata("molecule-a", {"x": "1"})
ONE_CORE = {"num_cpus": 1}


class Slow:
    """Says how far it is, and takes a moment longer than the interval between looks."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        for done in range(20):
            time.sleep(self.seconds / 20)
            report_part(done, 20, "ps")
        return {"x": np.full(2, index)}


def test_cores_that_others_hold_are_named_as_what_is_waited_for(
    free_when_said: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(waiting, "REPEAT_SECONDS", 1.0)
    free_when_said(waiting, num_lines=2)
    dataset = map_shards(Slow, 3, tmp_path, metadata=METADATA, label="sample", num_actors=2)
    assert len(dataset) == 3
    said = re.findall(r"^sample: waiting for .*$", capsys.readouterr().err, re.MULTILINE)
    assert set(said) == {"sample: waiting for 2 cores, 0 free"}
    assert len(said) >= 2


def absolute(value: int) -> int:
    return abs(value)


def test_jobs_that_wait_for_a_core_say_so(
    free_when_said: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
    free_when_said(waiting, num_lines=1)
    assert map_to_outcomes(absolute, [-1, 2, -3], options=ONE_CORE, max_concurrent=2) == [1, 2, 3]
    said = re.findall(r"waiting for .*", capsys.readouterr().err)
    assert said == ["waiting for 2 cores, 0 free"]


def shards_of_a_job(folder: Path, executor: Executor) -> int:
    waiting.PATIENCE_SECONDS = 1.0  # in the process of the job
    return len(executor.map_shards(Slow, 3, folder, metadata=METADATA, label="sample"))


def test_what_the_workers_of_a_job_wait_for_reaches_the_driver(
    free_when_said: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free_when_said(tasks, num_lines=1)
    assert RayExecutor(2).map_jobs(shards_of_a_job, [tmp_path]) == [3]
    assert "sample: waiting for 2 cores, 0 free\n" in capsys.readouterr().err


def test_workers_that_begin_later_have_their_time_too(
    busy_cluster: ActorHandle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.2)
    cores = waiting.Waiting("runs", "CPU")
    time.sleep(0.3)
    cores.look(0)
    cores.look(1)  # of a moment ago
    assert capsys.readouterr().err == ""
    time.sleep(0.3)
    cores.look(1)
    assert capsys.readouterr().err == "runs: waiting for 1 core, 0 free\n"
    ray.kill(busy_cluster)


@pytest.mark.parametrize(
    ("num_each", "said"), [(8, "sample: waiting for 16 cores, 15 free\n"), (7, "")]
)
def test_workers_of_many_cores_wait_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], num_each: int, said: str
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 15.0})
    waiting.Waiting("sample", "CPU", num_each).look(2)
    assert capsys.readouterr().err == said


def test_a_training_waits_for_its_place_not_for_its_processes(waited: SimpleNamespace) -> None:
    assert {line for _, line in waited.said} == {"train energy: waiting for 2 cores, 0 free"}
    # Two new processes take longer than that to import what they need.
    assert max(when for when, _ in waited.said) < waited.freed + 5


def test_progress_inside_a_shard_reaches_the_driver_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", 0.0)
    folder = tmp_path / "new"
    map_shards(lambda: Slow(4.0), 1, folder, metadata=METADATA, label="reference", num_actors=1)
    line = re.search(r"reference: (0\.\d+)/1 .*shard 0: (\d+) of 20 ps", capsys.readouterr().err)
    assert line is not None
    assert float(line[1]) == int(line[2]) / 20
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "shard_00000.json", "shard_00000.npz",
    ]  # fmt: skip


class Deadly:
    """Shard 1 kills its process every time."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        (self.journal / f"{index}-{os.getpid()}").touch()
        if index == 1:
            os._exit(9)
        return {"x": np.full(2, index)}


def test_a_shard_that_always_kills_its_process_is_given_up_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_TRIES", 2)
    journal, folder = tmp_path / "journal", tmp_path / "shards"
    journal.mkdir()
    with pytest.raises(InputError, match=r"shard 1 of \S*shards: .* 2 that died: .") as caught:
        map_shards(
            lambda: Deadly(journal), 4, folder, metadata=METADATA, label="sample", num_actors=2
        )
    assert "\n" not in str(caught.value)
    assert "the other 3 shards are kept" in str(caught.value)
    assert len(list(journal.glob("1-*"))) == 2
    written = [index for index in range(4) if completed_shard(folder, index, METADATA)]
    assert written == [0, 2, 3]


def test_a_task_that_always_kills_its_process_is_one_line() -> None:
    (outcome,) = map_to_outcomes(os._exit, [9], options=ONE_CORE, max_concurrent=1)
    assert isinstance(outcome, InputError)
    assert str(outcome).startswith("worker process of the Ray cluster: expected one that")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0
