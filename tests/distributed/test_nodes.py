"""Whole nodes are killed under trainings, which go on with what is left."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.train import fit
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.loop import train
from bnce_dist.training.task import TrainingTask

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("nodes_that_die.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script left; a process of its own, because it needs a cluster of its own."""
    folder = tmp_path_factory.mktemp("nodes")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, folder, "--quick"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("name", "ranks_started"),
    [
        # Two ranks, one of whose nodes dies; two on the nodes that are left.
        ("spare", 4),
        # Two ranks; one alone after its neighbour's node died; two again on a new node.
        ("elastic", 5),
    ],
)
def test_a_training_survives_its_nodes(folder: Path, name: str, ranks_started: int) -> None:
    events: dict[str, Any] = json.loads((folder / "events.json").read_text())[name]
    assert events["ranks_started"] == ranks_started
    checkpoint = load_checkpoint(folder / name / "checkpoint.pt")
    last = checkpoint["step"]
    assert events["steps"] == list(range(1, last + 1)), "each step is recorded once"
    assert [record["step"] for record in checkpoint["history"]] == events["steps"]

    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from nodes_that_die import make_task
        from ranks import build_objective
    finally:
        sys.path.remove(str(SCRIPT.parent))
    slow = make_task(folder / name, last)
    task = dataclasses.replace(slow, build_objective=partial(build_objective, "energy", 1))
    alone = train(task.create_objective(), task.open_data(), task.settings)
    for weight, value in alone.strategy.objective.state_dict().items():
        torch.testing.assert_close(checkpoint["model"][weight], value, rtol=0, atol=1e-6)


def test_an_elastic_group_needs_a_sample_for_everyone(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"at least 65.*got 64"):
        fit(task, tmp_path, num_workers=65, min_workers=1)
    with pytest.raises(InputError, match=r"1 to 2.*got 3"):
        fit(task, tmp_path, num_workers=4, min_workers=3)
