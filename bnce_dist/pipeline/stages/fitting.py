"""What the two training stages have in common."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.config import EmulatorConfig, EnergyConfig
from bnce_dist.pipeline.models import train_settings
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.tracking.tracker import ModelKind
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.task import TrainingMetadata, TrainingTask


def fit_model(
    context: StageContext,
    kind: ModelKind,
    config: EmulatorConfig | EnergyConfig,
    model: InternalVelocity | EnergyModel,
    build_objective: Callable[[], nn.Module],
    z: np.ndarray,
) -> None:
    """Train on all workers and give ``model`` the averaged weights.

    Args:
        context: Of the stage; gets ``z.npy``, the checkpoints and ``history.json``.
        kind: What is trained.
        config: How.
        model: Of the architecture that ``build_objective`` builds.
        build_objective: Makes the objective, which holds the model under its attribute's name.
        z: Training data, ``(samples, dim)`` float32.
    """
    data_path = context.folder / "z.npy"
    with atomic_path(data_path) as temporary, temporary.open("wb") as stream:
        np.save(stream, z)
    task = TrainingTask(
        build_objective,
        data_path,
        train_settings(config, context.config.seed),
        TrainingMetadata(kind, context.target.molecule.identity, model.config()),
    )
    result = context.executor.fit(task, context.folder / "training", report=context.track())
    write_json(context.folder / "history.json", result.history)
    averaged = load_checkpoint(result.checkpoint_path, metadata=task.metadata)["ema"]
    model.load_state_dict(_of_model(averaged))


def _of_model(state: dict[str, Any]) -> dict[str, Any]:
    """Return an objective's state without the name under which it holds its model."""
    return {name.partition(".")[2]: value for name, value in state.items()}
