"""Trainings on a cluster of several nodes, some of which are killed on the way.

    python nodes_that_die.py FOLDER [--quick]

Leaves the checkpoints ``FOLDER/spare/checkpoint.pt`` and ``FOLDER/elastic/checkpoint.pt``, and
what happened when in ``FOLDER/events.json``. With ``--quick`` the cluster misses a node after two
seconds, in place of fifteen, and an elastic group asks for its old size for three, in place of ten.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import ray
from ranks import build_objective
from ray.cluster_utils import Cluster
from torch import nn

from bnce_dist.distributed import train
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import Record, TrainingMetadata, TrainingTask

SECONDS_PER_STEP = 0.25


def build_slow_objective(folder: Path) -> nn.Module:
    """Note the node of every rank, and leave it time to be killed while ``slow`` is there."""
    node_id = ray.get_runtime_context().get_node_id()
    with (folder / "nodes").open("a") as nodes:
        nodes.write(f"{node_id}\n")
    objective = build_objective("energy", num_circular=1)
    if (folder / "slow").exists():
        objective.register_forward_pre_hook(lambda *_: time.sleep(SECONDS_PER_STEP))
    return objective


def make_task(folder: Path, num_steps: int) -> TrainingTask:
    """Return a training that is slow as long as ``folder/slow`` is there when a rank starts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slow").touch()
    settings = TrainSettings(
        num_steps=num_steps,
        global_batch_size=64,
        warmup_steps=10,
        checkpoint_interval=10,
        report_interval=1,
        seed=5,
    )
    return TrainingTask(
        partial(build_slow_objective, folder),
        folder.parent / "z.npy",
        settings,
        TrainingMetadata("energy", "molecule-a"),
    )


class Story:
    """Kills and adds nodes as a training goes on, and notes what followed.

    Args:
        cluster: Its nodes of one core each.
        folder: Of the training.
        grow: Whether a node joins later.
    """

    def __init__(self, cluster: Cluster, folder: Path, *, grow: bool) -> None:
        self.cluster, self.folder, self.grow = cluster, folder, grow
        self.records: list[Record] = []
        self.killed_at = self.recovered_after = self.added_at = self.grown_after = 0.0
        self.lost_steps = 0
        self.starts_when_killed = 0

    def nodes(self) -> list[str]:
        """Return the node of every rank that ever started, in order."""
        path = self.folder / "nodes"
        return path.read_text().split() if path.exists() else []

    def kill_a_node(self) -> None:
        """Kill the node of the rank that started last."""
        self.starts_when_killed, self.killed_at = len(self.nodes()), time.monotonic()
        victim = self.nodes()[-1]
        (node,) = (node for node in self.cluster.list_all_nodes() if node.node_id == victim)
        self.cluster.remove_node(node, allow_graceful=False)

    def hurry(self) -> None:
        """Let the ranks that start from now on take no time."""
        (self.folder / "slow").unlink()

    def follow(self, record: Record) -> None:
        """Take in a record of the loss history."""
        self.records.append(record)
        now, started = time.monotonic(), len(self.nodes())
        if not self.killed_at and record["step"] >= 15:
            self.kill_a_node()
            if not self.grow:
                self.hurry()
        elif self.killed_at and not self.recovered_after and started > self.starts_when_killed:
            self.recovered_after = now - self.killed_at
            if self.grow:
                self.cluster.add_node(num_cpus=1)
                self.added_at = time.monotonic()
                self.hurry()
        elif self.added_at and not self.grown_after and started > self.starts_when_killed + 1:
            self.grown_after = now - self.added_at

    def summary(self) -> dict[str, object]:
        """Return what happened."""
        return {
            "ranks_started": len(self.nodes()),
            "recovered_after_seconds": self.recovered_after,
            "grown_after_seconds": self.grown_after,
            "steps": [record["step"] for record in self.records],
        }


QUICK = {"health_check_period_ms": 1000, "health_check_failure_threshold": 2}


def main(folder: Path, *, quick: bool) -> None:
    z = np.random.default_rng(0).standard_normal((256, 4)).astype(np.float32)
    np.save(folder / "z.npy", z)
    train.GROW_INTERVAL_SECONDS = 3.0
    if quick:
        train.REGROUP_TIMEOUT = (train.REGROUP_TIMEOUT[0], "3")
    # Training is kept off the head, which is the one node that must not die.
    head = {"num_cpus": 0, "_system_config": QUICK if quick else {}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(3):
        cluster.add_node(num_cpus=1, wait=False)
    cluster.wait_for_nodes(timeout=90)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    events = {}
    for name, min_workers, num_steps in (("spare", None, 60), ("elastic", 1, 160)):
        story = Story(cluster, folder / name, grow=min_workers is not None)
        task = make_task(folder / name, num_steps)
        train.fit(task, folder / name, num_workers=2, min_workers=min_workers, report=story.follow)
        events[name] = story.summary()
    (folder / "events.json").write_text(json.dumps(events))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), quick="--quick" in sys.argv)
