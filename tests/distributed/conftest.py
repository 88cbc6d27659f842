import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.actor import ActorHandle
from torch import Tensor, nn

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.train import fit
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingResult, TrainingTask

# The workers cannot import test modules: what they need of them travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="session")
def two_cpus() -> Iterator[None]:
    ensure_ray(num_cpus=2)
    yield
    ray.shutdown()


@ray.remote(num_cpus=2)
class Occupant:
    def begin(self) -> None:
        """Answer when all cores are taken."""


@pytest.fixture
def busy_cluster(two_cpus: None) -> Iterator[ActorHandle]:
    """Who has all cores of the cluster, until it is killed."""
    occupant = Occupant.remote()
    ray.get(occupant.begin.remote())
    yield occupant
    ray.kill(occupant)


class SlowEnergyMatching(EnergyMatching):
    """Leaves time to be killed between two steps."""

    pause_seconds = 0.0

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        time.sleep(self.pause_seconds)
        return super().forward(**batch)


def build_energy_matching(pids: Path, pause_seconds: float = 0.0) -> nn.Module:
    """The real double backward, on two Euclidean coordinates and one angle."""
    pids.mkdir(exist_ok=True)
    (pids / str(os.getpid())).touch()
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2, num_circular=1)
    model = LateFusionEnergy(2, 1, width=16, depth=2, num_features=8, time_width=16)
    objective = SlowEnergyMatching(
        model,
        path,
        score_weight=1.0,
        infonce_weight=2.0,
        num_negatives=16,
        negatives="stratified",
        time_exponent=2.5,
    )
    objective.pause_seconds = pause_seconds
    return objective


def squared_weights(objective: nn.Module) -> dict[str, float]:
    weights = nn.utils.parameters_to_vector(objective.parameters())
    return {"squared_weights": weights.square().sum().item()}


def make_task(folder: Path, **build: Any) -> TrainingTask:
    folder.mkdir(exist_ok=True)
    data_path = folder / "z.npy"
    np.save(data_path, np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32))
    settings = TrainSettings(
        num_steps=60,
        global_batch_size=64,
        warmup_steps=10,
        checkpoint_interval=20,
        report_interval=2,
        seed=5,
    )
    objective = partial(build_energy_matching, folder / "pids", **build)
    metadata = TrainingMetadata("energy", "molecule-a")
    return TrainingTask(objective, data_path, settings, metadata, squared_weights)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def slow_task(tmp_path: Path) -> TrainingTask:
    return make_task(tmp_path / "task", pause_seconds=0.05)


@pytest.fixture(scope="session")
def undisturbed(
    two_cpus: None, task: TrainingTask, tmp_path_factory: pytest.TempPathFactory
) -> TrainingResult:
    """Two workers, nothing goes wrong."""
    return fit(task, tmp_path_factory.mktemp("undisturbed"), num_workers=2)
