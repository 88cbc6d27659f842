"""Checkpoints: plain types and tensors, labelled with what they belong to."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError
from bnce_dist.data.torch_file import read_torch, write_torch
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.strategy import SingleDevice
from bnce_dist.training.task import TrainingMetadata, TrainingTask

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
"""In a training's own folder."""

RUN_PREFIX = "ray_train"
"""Of the folders inside it that a group of workers leaves its checkpoints in."""

SCHEMA_VERSION = 2
_FIELDS = ("metadata", "settings", "step", "model", "ema", "history")
# They change what is written when, not what is learned.
_FREE_SETTINGS = ("checkpoint_interval", "report_interval")
SCHEDULABLE_SETTINGS = ("learning_rate", "gradient_clip")
"""Settings that may have other values in other parts of one training."""


def save_checkpoint(path: str | Path, content: dict[str, Any], task: TrainingTask) -> None:
    """Write what ``TrainState.state_dict`` returned, atomically.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    label = {
        "schema_version": SCHEMA_VERSION,
        "metadata": _plain(task.metadata),
        "settings": task.settings.model_dump(),
    }
    write_torch(path, label | content)


def load_checkpoint(
    path: str | Path, *, metadata: TrainingMetadata | None = None
) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: The file.
        metadata: If given, what the checkpoint must belong to.

    Returns: ``step``, ``model`` and ``ema`` (state dicts of the objective), ``optimizer`` (by
        name of the weight; in schema 1 ``optimizers``, see ``load_resumable``), ``history``,
        ``metadata``, ``settings`` and ``schema_version``.
    Raises: InputError: absent, truncated, not a checkpoint, of an unknown schema version, or of
        another molecule, stage or model.
    """
    content = read_torch(
        path,
        "checkpoint",
        expected="a complete checkpoint file",
        remedy="delete it to train from the last earlier checkpoint or from the start",
    )
    version = content.get("schema_version")
    absent = [name for name in _FIELDS if name not in content]
    if absent and version in (1, SCHEMA_VERSION):
        _require_equal(path, "fields", ", ".join(_FIELDS), f"without {', '.join(absent)}")
    if version != 1:
        _require_equal(path, "schema version", SCHEMA_VERSION, version)
    if metadata is not None:
        for name, expected in _plain(metadata).items():
            _require_equal(path, name, expected, content["metadata"].get(name))
    return content


def load_resumable(path: str | Path, task: TrainingTask) -> dict[str, Any]:
    """Read a checkpoint that the task can go on from, whatever strategy wrote it.

    Raises: InputError: as ``load_checkpoint``; or it was trained with other settings.
    """
    content = load_checkpoint(path, metadata=task.metadata)
    # A setting younger than the file had the value that is now its default.
    defaults = {name: field.default for name, field in TrainSettings.model_fields.items()}
    written = defaults | content["settings"]
    for name, expected in task.settings.model_dump().items():
        if name not in _FREE_SETTINGS:
            _require_equal(path, f"setting {name}", expected, written[name])
    return _migrated(content, task)


def _migrated(content: dict[str, Any], task: TrainingTask) -> dict[str, Any]:
    """Return the content in the present schema: the first one numbered the optimisers' states."""
    if content["schema_version"] == SCHEMA_VERSION:
        return content
    strategy = SingleDevice(task.create_objective(), task.settings)
    for optimizer, state in zip(strategy.optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return content | {
        "schema_version": SCHEMA_VERSION,
        "optimizer": strategy.optimizer_state(),
    }


def keep_last(folder: Path) -> None:
    """Move the last checkpoint to where every executor looks for it, and drop the rest.

    The last is that of the highest step: time stamps are those of a copy, or of another clock.

    Raises: InputError: there are checkpoints, and none can be read; all of them stay.
    """
    own, left = folder / CHECKPOINT, sorted(folder.glob(f"{RUN_PREFIX}*/*/{CHECKPOINT}"))
    if left:
        last = _last(left + [own] * own.exists())
        if last != own:
            last.replace(own)
    for run_folder in folder.glob(f"{RUN_PREFIX}*"):
        shutil.rmtree(run_folder, ignore_errors=True)


def _last(paths: list[Path]) -> Path:
    """Return the checkpoint of the highest step among those that can be read."""
    steps, errors = {}, []
    for path in paths:
        try:
            steps[path] = load_checkpoint(path)["step"]
        except InputError as error:
            errors.append(error)
    if not steps:
        raise errors[0]
    for unreadable in errors:
        logger.warning("passed over: %s", unreadable)
    return max(steps, key=lambda path: steps[path])


def branch_checkpoint(source: str | Path, path: str | Path, task: TrainingTask) -> None:
    """Copy a checkpoint so that a task with other schedulable settings goes on from it.

    Args:
        source: A checkpoint of the same model.
        path: Where the task looks for its own.
        task: What goes on; its settings may differ in ``SCHEDULABLE_SETTINGS`` only.

    Raises: InputError: as ``load_resumable``.
    """
    written = load_checkpoint(source)["settings"]
    scheduled = {name: written[name] for name in SCHEDULABLE_SETTINGS}
    settings = task.settings.model_copy(update=scheduled)
    content = load_resumable(source, replace(task, settings=settings))
    write_torch(path, content | {"settings": task.settings.model_dump()})


def _plain(metadata: TrainingMetadata) -> dict[str, Any]:
    return {
        "stage": metadata.stage,
        "molecule": metadata.molecule,
        "model": dict(metadata.model),
    }


def _require_equal(path: str | Path, name: str, expected: object, got: object) -> None:
    if got != expected:
        raise InputError(
            f"checkpoint {path}",
            expected=f"{name} {expected}",
            got=f"{name} {got}",
            remedy="use another output folder or name, or go back to what it was made with",
        )
