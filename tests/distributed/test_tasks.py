import os
import signal
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from ray import cloudpickle

from bnce_dist.core.device import worker_device
from bnce_dist.core.errors import InputError
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.pipeline.executor import Executor, LocalExecutor

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("two_cpus")]
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def walk(seed: int, _: Executor | None = None) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(1000).cumsum()


def walk_and_die_once(folder: Path, seed: int, _: Executor) -> np.ndarray:
    marker = folder / str(seed)
    if seed % 3 == 0 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return walk(seed)


def test_results_come_in_the_order_of_the_items_as_from_one_process() -> None:
    items = [5, 3, 8, 1]
    here = LocalExecutor().map_jobs(walk, items)
    there = RayExecutor(2).map_jobs(walk, items, label="walk")
    np.testing.assert_array_equal(here, there)


def test_an_item_whose_worker_is_killed_is_run_again(tmp_path: Path) -> None:
    got = RayExecutor(2).map_jobs(partial(walk_and_die_once, tmp_path), range(5))
    np.testing.assert_array_equal(got, [walk(seed) for seed in range(5)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "3"]


def device_where_a_gpu_is_seen(_: int, executor: Executor) -> str:
    with patch("torch.cuda.is_available", return_value=True):
        return str(worker_device())


def test_a_job_that_was_given_no_gpu_leaves_those_it_sees_to_others() -> None:
    assert RayExecutor(2).map_jobs(device_where_a_gpu_is_seen, [0, 1]) == ["cpu", "cpu"]
    assert LocalExecutor().map_jobs(device_where_a_gpu_is_seen, [0]) == ["cuda"]


def test_no_items_give_no_results() -> None:
    assert RayExecutor(2).map_jobs(walk, []) == []


def absolute(value: int, _: Executor) -> int:
    return abs(value)


def sum_in_parts(values: list[int], executor: Executor) -> int:
    """A job whose parts run on the workers it was given."""
    if 13 in values:
        raise InputError("value", expected="no 13", got=13, remedy="leave it out")
    if 99 in values:
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(executor.map_jobs(absolute, values))


def test_jobs_share_the_workers_and_fail_alone() -> None:
    items = [[1, -2], [13], [3], [99], [-4, 5]]
    outcomes = RayExecutor(2).map_jobs(sum_in_parts, items)
    assert outcomes[0::2] == [3, 3, 9]
    assert str(outcomes[1]) == "value: expected no 13, got 13; leave it out"
    assert isinstance(outcomes[3], InputError)
    assert "worker process" in str(outcomes[3])


def test_a_job_with_several_workers_leaves_them_to_its_own_tasks() -> None:
    # With fewer jobs than workers, a job that held a core itself would starve its own tasks.
    assert RayExecutor(2).map_jobs(sum_in_parts, [[1, -2, 3]]) == [6]
