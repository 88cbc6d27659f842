import os
import subprocess
import sys

import pytest
import ray

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.cluster import available_workers, ensure_ray
from bnce_dist.distributed.executor import RayExecutor


@pytest.mark.parametrize("num_workers", [0, -1])
def test_no_workers_are_refused_before_ray_starts(num_workers: int) -> None:
    connected = ray.is_initialized()
    with pytest.raises(InputError, match="number of workers: expected at least 1"):
        RayExecutor(num_workers)
    assert ray.is_initialized() == connected


@pytest.mark.ray
def test_more_workers_than_cores_are_refused(two_cpus: None) -> None:
    assert available_workers() == 2
    with pytest.raises(InputError, match="expected 1 to 2, what the cluster holds, got 3"):
        RayExecutor(3)


@pytest.mark.ray
def test_a_connected_process_stays_connected(two_cpus: None) -> None:
    before = ray.get_runtime_context().get_job_id()
    ensure_ray(num_cpus=7)
    assert (ray.get_runtime_context().get_job_id(), available_workers()) == (before, 2)


@ray.remote
def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


@pytest.mark.ray
def test_a_worker_computes_on_one_thread(two_cpus: None) -> None:
    assert ray.get(threads.options(num_cpus=1).remote()) == "1"


@pytest.mark.ray
def test_an_unreachable_cluster_is_one_clear_line() -> None:
    code = (
        "from bnce_dist.distributed.cluster import ensure_ray\n"
        "try: ensure_ray()\n"
        "except ValueError as error: print(error)"
    )
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout.startswith("Ray cluster 127.0.0.1:9 (RAY_ADDRESS): expected HOST:PORT")
    assert ended.stdout.count("\n") == 1
