import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.distributed import cluster, executor
from bnce_dist.distributed.cluster import (
    available_actors,
    available_workers,
    call_for_workers,
    ensure_ray,
    num_gpus,
    require_workers,
)
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.pipeline.cluster import WorkerResources
from bnce_dist.pipeline.executor import Executor

# Workers cannot import test modules: what they need of them travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


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


@pytest.fixture
def mixed_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three nodes as Ray lists them, and one that died."""
    nodes = [
        ({"CPU": 3.0, "GPU": 2.0, "accelerator_type:H100": 1.0}, {"zone": "eu"}, True),
        ({"CPU": 64.0, "GPU": 4.0, "accelerator_type:A100": 1.0}, {"zone": "us"}, True),
        ({"CPU": 16.0}, {"zone": "us", "market-type": "spot"}, True),
        ({"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}, {"zone": "eu"}, False),
    ]
    listed = [{"Resources": r, "Labels": labels, "Alive": alive} for r, labels, alive in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: listed)


@pytest.mark.parametrize(
    ("settings", "ranks", "actors"),
    [
        ({}, 6, 6),
        # Four share a GPU, but the first node has three cores for its two GPUs.
        ({"workers_per_gpu": 4}, 6, 3 + 16),
        # Two cores each: one GPU of the first node has none left.
        ({"cpus_per_worker": 2}, 1 + 4, 1 + 4),
        ({"accelerator_type": "H100"}, 2, 2),
        ({"accelerator_type": "V100"}, 0, 0),
        ({"node_labels": {"zone": "us"}}, 4, 4),
        ({"node_labels": {"zone": "!eu"}}, 4, 4),
        ({"node_labels": {"zone": "in(eu, asia)"}}, 2, 2),
        ({"node_labels": {"zone": "!in(eu,asia)"}}, 4, 4),
        # Without GPUs it is cores that count.
        ({"node_labels": {"market-type": "spot"}, "cpus_per_worker": 5}, 3, 3),
        ({"node_labels": {"market-type": "!spot"}}, 6, 6),
    ],
)
@pytest.mark.usefixtures("mixed_nodes")
def test_room_is_counted_on_the_nodes_that_may_be_used(
    settings: dict[str, object], ranks: int, actors: int
) -> None:
    resources = WorkerResources.model_validate(settings)
    assert (available_workers(resources), available_actors(resources)) == (ranks, actors)


@pytest.mark.usefixtures("mixed_nodes")
def test_a_refusal_names_the_settings_that_leave_too_little_room() -> None:
    resources = WorkerResources(accelerator_type="H100", cpus_per_worker=2)
    assert num_gpus(resources) == 2
    with pytest.raises(
        InputError, match=r"1 to 1, .* cluster.cpus_per_worker=2, cluster.accelerator_type=H100, g"
    ):
        require_workers(2, resources)


@pytest.mark.usefixtures("mixed_nodes")
@pytest.mark.parametrize(
    ("settings", "gpus", "bundle", "comes_at_once"),
    [
        ({"node_labels": {"market-type": "spot"}, "cpus_per_worker": 5}, False, {"CPU": 5}, True),
        # Sixteen cores are there, in which one worker of nine has room.
        ({"node_labels": {"market-type": "spot"}, "cpus_per_worker": 9}, False, {"CPU": 9}, False),
        ({"node_labels": {"market-type": "spot"}}, True, {"CPU": 1, "GPU": 1}, False),
        ({"node_labels": {"zone": "eu"}}, False, {"CPU": 1, "GPU": 1}, True),
    ],
)
def test_a_cluster_that_scales_is_asked_for_whole_workers(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    gpus: bool,
    bundle: dict[str, int],
    comes_at_once: bool,
) -> None:
    resources = WorkerResources.model_validate(settings)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster, "request_resources", lambda **request: asked.append(request))
    started = time.monotonic()
    call_for_workers(2, 0.5, resources, gpus=gpus)
    assert (time.monotonic() - started < 0.5) == comes_at_once
    assert asked[0]["bundles"] == [bundle] * 2
    assert asked[0]["bundle_label_selectors"] == [resources.node_labels] * 2
    assert asked[-1] == {"bundles": []}


def test_a_cluster_that_has_no_workers_yet_is_told_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a new one on AWS or Kubernetes has: a head without work."""
    head = {"Alive": True, "Resources": {"CPU": 0}, "Labels": {}}
    monkeypatch.setattr(ray, "nodes", lambda: [head])
    with pytest.raises(InputError, match=r"bnce preflight --wait 1200 cluster\.num_workers=4"):
        require_workers(4)


class Node:
    """Tells the node that a member of a fleet is on."""

    def __call__(self, item: int, executor: Executor) -> str:
        return str(ray.get_runtime_context().get_node_id())


@pytest.mark.ray
def test_members_of_a_fleet_run_on_the_nodes_of_the_labels(
    two_cpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is the work, if it has one worker; where no node has the label, it waits."""
    (node,) = ray.nodes()
    here = {"ray.io/node-id": node["NodeID"]}
    assert (
        RayExecutor(resources=WorkerResources(node_labels=here)).map_jobs(Node(), [1, 2])
        == [node["NodeID"]] * 2
    )
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(
        executor, "map_to_outcomes", lambda *_, **passed: options.append(passed["options"])
    )
    RayExecutor(resources=WorkerResources(node_labels=here)).map_jobs(Node(), [1, 2])
    assert options[0]["label_selector"] == here


class Cores:
    """Tells the cores that Ray gave its process, and the node it is on."""

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        context = ray.get_runtime_context()
        cores = context.get_assigned_resources()["CPU"]
        return {"cores": np.array([cores]), "node": np.array([context.get_node_id()])}


@pytest.mark.ray
def test_an_actor_gets_its_cores_on_a_node_of_the_labels(two_cpus: None, tmp_path: Path) -> None:
    (node,) = ray.nodes()
    label = "ray.io/node-id"
    here = WorkerResources(cpus_per_worker=2, node_labels={label: node["NodeID"]})
    metadata = DatasetMetadata("molecule-a", {"cores": "1", "node": "1"})
    on_it = RayExecutor(resources=here)
    made = on_it.map_shards(Cores, 2, tmp_path, metadata=metadata, label="cores").load()
    on_it.release()
    assert made["cores"].tolist() == [2, 2]
    assert set(made["node"]) == {node["NodeID"]}
    with pytest.raises(InputError, match=r"expected 1 to 0, what the cluster holds with cluster"):
        RayExecutor(resources=WorkerResources(node_labels={label: f"!{node['NodeID']}"}))
