"""Draw the emulator's samples that the energy model learns from."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.core.device import worker_device
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.pipeline.stages.context import StageContext

SAMPLE_UNITS = {"z_prior": "1", "z": "1"}


def run(context: StageContext) -> None:
    """Leave the data set ``samples``."""
    config = context.config.generate
    context.executor.map_shards(
        partial(
            Sampler,
            emulator_path=context.inputs["train_emulator"] / "emulator.pt",
            num_samples=config.num_samples,
            shard_size=config.shard_size,
            stream=(context.config.seed, "generate"),
        ),
        num_shards(config.num_samples, config.shard_size),
        context.folder / "samples",
        metadata=context.metadata(SAMPLE_UNITS),
        label="generate",
    )


class Sampler:
    """Draws the shards of a data set of emulator samples.

    Args:
        emulator_path: The emulator's file.
        num_samples: Samples of all shards together.
        shard_size: Samples of each shard but the last.
        stream: Key of the random stream; the shard's index is added to it.
    """

    def __init__(
        self,
        emulator_path: Path,
        num_samples: int,
        shard_size: int,
        stream: tuple[int | str, ...],
    ) -> None:
        self.emulator = Emulator.load(emulator_path).to(worker_device())
        self.num_samples, self.shard_size, self.stream = num_samples, shard_size, stream

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return prior draws and samples of one shard, ``(samples, dim)`` each."""
        size = min(self.shard_size, self.num_samples - index * self.shard_size)
        z_prior = self.emulator.sample_prior(size, generator(*self.stream, index))
        z = require_finite(self.emulator.transport(z_prior))
        return {"z_prior": z_prior.cpu().numpy(), "z": z.cpu().numpy()}


def require_finite(z: Tensor) -> Tensor:
    """Return samples as they are, ``(samples, dim)``.

    Raises: InputError: some of them are no numbers.
    """
    if not torch.isfinite(z).all():
        raise InputError(
            "emulator",
            expected="finite samples",
            got=f"{int((~torch.isfinite(z)).any(1).sum())} of {len(z)} not finite",
            remedy="train it longer or with a smaller emulator.learning_rate",
        )
    return z


def num_shards(num_samples: int, shard_size: int) -> int:
    """Return how many shards of ``shard_size`` hold ``num_samples``."""
    return -(-num_samples // shard_size)
