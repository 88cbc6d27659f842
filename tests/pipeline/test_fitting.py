"""What a training is told by the configuration besides its settings."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnce_dist.config.load import load_config
from bnce_dist.generator.shared_architectures import build_field, build_molecular_matching
from bnce_dist.generator.target import Target
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.task import TrainingTask

FEATURES = [[1.0, 0.0], [0.0, 1.0]]


class Stopped(Exception):
    """The task was handed over."""


class TaskTaker:
    """An executor that trains nothing."""

    def fit(self, task: TrainingTask, folder: Path, **_: Any) -> None:
        self.task = task
        raise Stopped


def task_of(config: Config, folder: Path) -> TrainingTask:
    """Return the task that the training of a field would be."""
    executor, field = TaskTaker(), build_field(config.transferable, 2)
    target = Target.from_config(config.target)
    context = StageContext(config, target, folder, {}, "key", executor, Tracker())
    build = partial(build_molecular_matching, config.transferable, [FEATURES])
    with pytest.raises(Stopped):
        fit_model(
            context, "emulator", config.transferable, field, build, [np.zeros((4, 7), np.float32)]
        )
    return executor.task


@pytest.mark.parametrize("chosen", [False, True])
def test_a_training_recomputes_activations_if_told_to(tmp_path: Path, chosen: bool) -> None:
    config = load_config(Config, None, [f"cluster.activation_checkpointing={str(chosen).lower()}"])
    task = task_of(config, tmp_path)
    field = task.create_objective().velocity_field
    assert isinstance(field, GVPVectorField)
    assert field.activation_checkpointing is chosen
    # A checkpoint of either fits the other.
    assert task.metadata.model == build_field(config.transferable, 2).config()
