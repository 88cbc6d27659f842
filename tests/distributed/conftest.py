import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.actor import ActorHandle
from torch import nn

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.distributed import waiting
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


def occupy() -> ActorHandle:
    """Return who has all cores of the cluster from now on, until it is killed."""
    occupant = Occupant.remote()
    ray.get(occupant.begin.remote())
    return occupant


@pytest.fixture
def busy_cluster(two_cpus: None) -> Iterator[ActorHandle]:
    """Who has all cores of the cluster, until it is killed."""
    occupant = occupy()
    yield occupant
    ray.kill(occupant)


@pytest.fixture
def free_when_said(
    busy_cluster: ActorHandle, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ModuleType, int], None]:
    """Has the cores freed as soon as a module has said so many lines, the last for a minute."""

    def free(module: ModuleType, num_lines: int) -> None:
        say, lines = module.say, []

        def say_and_free(line: str) -> None:
            say(line)
            lines.append(line)
            if len(lines) == num_lines - 1:  # Processes that start have their cores already.
                monkeypatch.setattr(waiting, "REPEAT_SECONDS", 60.0)
            if len(lines) == num_lines:
                ray.kill(busy_cluster)

        monkeypatch.setattr(module, "say", say_and_free)

    return free


@pytest.fixture(scope="session")
def mount_disk() -> Iterator[Callable[[Path], bool]]:
    """Mounts a disk of 4 MB at a new folder, if this user may."""
    mounted = []

    def mount(folder: Path) -> bool:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return False
        mounted.append(folder)
        return True

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def build_energy_matching() -> nn.Module:
    """The real double backward, on two Euclidean coordinates and one angle."""
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2, num_circular=1)
    model = LateFusionEnergy(2, 1, width=16, depth=2, num_features=8, time_width=16)
    return EnergyMatching(
        model,
        path,
        score_weight=1.0,
        infonce_weight=2.0,
        num_negatives=16,
        negatives="stratified",
        time_exponent=2.5,
    )


def squared_weights(objective: nn.Module) -> dict[str, float]:
    weights = nn.utils.parameters_to_vector(objective.parameters())
    return {"squared_weights": weights.square().sum().item()}


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    data_path = tmp_path_factory.mktemp("task") / "z.npy"
    np.save(data_path, np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32))
    settings = TrainSettings(
        num_steps=60,
        global_batch_size=64,
        warmup_steps=10,
        checkpoint_interval=10,
        report_interval=2,
        seed=5,
    )
    metadata = TrainingMetadata("energy", "molecule-a")
    return TrainingTask(build_energy_matching, data_path, settings, metadata, squared_weights)


@pytest.fixture(scope="session")
def waited(
    two_cpus: None, task: TrainingTask, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Two workers, whose cores are freed as soon as it was said twice that they are not.

    Returns: What was ``said`` and when [s], when the cores were ``freed`` [s], and the ``result``.
    """
    occupant = occupy()
    said: list[tuple[float, str]] = []

    def say(line: str) -> None:
        said.append((time.monotonic(), line))
        if len(said) == 2:
            ray.kill(occupant)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
        patch.setattr(waiting, "REPEAT_SECONDS", 0.5)
        patch.setattr(waiting, "say", say)
        result = fit(task, tmp_path_factory.mktemp("undisturbed"), num_workers=2)
    return SimpleNamespace(said=said, freed=said[1][0], result=result)


@pytest.fixture(scope="session")
def undisturbed(waited: SimpleNamespace) -> TrainingResult:
    """Two workers; once they have begun, nothing goes wrong."""
    return waited.result
