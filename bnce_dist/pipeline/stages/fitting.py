"""What the training stages have in common."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bnce_dist.data.array_file import write_rows
from bnce_dist.data.atomic import write_json
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.recomputing import with_activation_checkpointing
from bnce_dist.nn.tokens import TokenField
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.tracking.tracker import ModelKind
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.settings import TrainingConfig, TrainSettings
from bnce_dist.training.task import Record, TrainingMetadata, TrainingTask


def fit_model(
    context: StageContext,
    kind: ModelKind,
    config: TrainingConfig,
    model: InternalVelocity | GVPVectorField | TokenField | EnergyModel,
    build_objective: Callable[[], nn.Module],
    z: Iterable[np.ndarray],
) -> None:
    """Train on all workers and give ``model`` the averaged weights.

    Args:
        context: Of the stage; gets ``z.npy``, the checkpoints and ``history.json``.
        kind: What is trained.
        config: How.
        model: Of the architecture that ``build_objective`` builds.
        build_objective: Makes the objective, which holds the model under its attribute's name.
        z: Training data in parts, each ``(samples, dim)`` float32, one in memory at a time.
    """
    if context.config.cluster.activation_checkpointing:
        build_objective = partial(with_activation_checkpointing, build_objective)
    fit_in_folder(
        context.folder,
        context.executor,
        model,
        build_objective,
        z,
        config.with_seed(context.config.seed),
        TrainingMetadata(kind, context.target.molecule.identity, model.config()),
        report=context.track(),
    )


def fit_in_folder(
    folder: Path,
    executor: Executor,
    model: InternalVelocity | GVPVectorField | TokenField | EnergyModel,
    build_objective: Callable[[], nn.Module],
    z: Iterable[np.ndarray],
    settings: TrainSettings,
    metadata: TrainingMetadata,
    *,
    report: Callable[[Record], None] | None = None,
) -> None:
    """Train on all workers and give ``model`` the averaged weights.

    Args:
        folder: Gets ``z.npy``, the checkpoints and ``history.json``.
        executor: Does the training.
        model: Of the architecture that ``build_objective`` builds.
        build_objective: Makes the objective, which holds the model under its attribute's name.
        z: Training data in parts, each ``(samples, dim)`` float32, one in memory at a time.
        settings: How to train.
        metadata: What the checkpoints are labelled with.
        report: Called with every record of the training.
    """
    data_path = folder / "z.npy"
    write_rows(data_path, z)
    task = TrainingTask(build_objective, data_path, settings, metadata)
    result = executor.fit(task, folder / "training", report=report)
    write_json(folder / "history.json", result.history)
    averaged = load_checkpoint(result.checkpoint_path, metadata=metadata)["ema"]
    model.load_state_dict(_of_model(averaged))


def _of_model(state: dict[str, Any]) -> dict[str, Any]:
    """Return an objective's state without the name under which it holds its model."""
    return {name.partition(".")[2]: value for name, value in state.items()}
