"""A training run as a value: it can be pickled, sent to any worker and started there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.random import seed_from
from bnce_dist.training.settings import TrainSettings

Record = dict[str, float]
"""One line of a loss history: step, loss, its parts, learning_rate; since the record before it,
samples_per_second and cpu_seconds (of all ranks together); where a checkpoint was due, also what
``TrainingTask.validate`` returned."""


@dataclass(frozen=True)
class TrainingMetadata:
    """What a checkpoint belongs to; a checkpoint of anything else is refused.

    Args:
        stage: E.g. ``"emulator"`` or ``"energy"``.
        molecule: Identity of the molecule (``Molecule.identity``).
        model: Constructor arguments of the model (``model.config()``).
    """

    stage: str
    molecule: str
    model: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingTask:
    """Everything a worker needs to train one model.

    Args:
        build_objective: Makes the objective with its model inside; a top-level function or a
            ``functools.partial`` of one, so that it pickles.
        data_path: ``.npy`` of float32 model-space vectors, ``(samples, dim)``; every rank maps
            it into memory, so it must lie where every node can read it.
        settings: How to train.
        metadata: What the checkpoints are labelled with.
        validate: Judges the objective with the averaged weights whenever a checkpoint is due, on
            the first rank alone, and returns numbers for the record; pickles, and leaves the
            objective and the global random state as they are.
    """

    build_objective: Callable[[], nn.Module]
    data_path: Path
    settings: TrainSettings
    metadata: TrainingMetadata
    validate: Callable[[nn.Module], dict[str, float]] | None = None

    def create_objective(self) -> nn.Module:
        """Return the objective with the initial weights that ``settings.seed`` decides."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(self.settings.seed, "initial weights"))
            return self.build_objective()

    def open_data(self) -> np.ndarray:
        """Return the memory-mapped data, ``(samples, dim)`` float32.

        Raises: InputError: the file is absent, torn, or of another type or shape.
        """

        def refused(expected: str, got: object) -> InputError:
            return InputError(
                f"training data {self.data_path}",
                expected=expected,
                got=got,
                remedy="delete it and run the stage that writes it again",
            )

        with as_input_error(partial(refused, "a .npy file")):
            data = np.load(self.data_path, mmap_mode="r", allow_pickle=False)
        if not isinstance(data, np.ndarray):
            raise refused("a .npy file", "an archive")
        if data.ndim != 2 or data.dtype != np.float32 or len(data) == 0:
            got = f"{data.dtype} {data.shape}"
            raise refused("a non-empty float32 array (samples, dim)", got)
        return data


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves.

    Args:
        checkpoint_path: The last checkpoint, with raw and averaged weights.
        history: The loss history from the first step on, also across restarts.
        seconds: Wall time of this call (not of what earlier, interrupted calls did).
    """

    checkpoint_path: Path
    history: list[Record]
    seconds: float
