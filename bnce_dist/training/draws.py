"""What is random in a step of a training, drawn by every rank for its own samples alone.

The rows of the global batch are cut into blocks of a fixed size, and everything drawn for a block
is keyed by seed, step and block. A rank draws the blocks that its rows lie in: neither what it gets
nor how long that takes depends on how many other ranks there are.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnce_dist.core.random import generator
from bnce_dist.training.settings import TrainSettings

BLOCK_SIZE = 512
"""Rows that are drawn together: their times are stratified, and couplings pair within them."""


def draw_batch(
    objective: Any, data: np.ndarray, settings: TrainSettings, step: int, part: slice
) -> dict[str, Tensor]:
    """Return one rank's part of everything random in a step, on the objective's device.

    Args:
        objective: See ``loop.train``.
        data: Model-space vectors, ``(samples, dim)`` float32.
        settings: With the seed and ``global_batch_size``.
        step: Which one.
        part: The rank's rows of the global batch.
    """
    batch_size = min(settings.global_batch_size, len(data))
    start, stop, _ = part.indices(batch_size)
    first = start // BLOCK_SIZE
    blocks = [
        _draw_block(objective, data, settings, step, block)
        for block in range(first, -(-stop // BLOCK_SIZE))
    ]
    own = slice(start - first * BLOCK_SIZE, stop - first * BLOCK_SIZE)
    return {
        name: value
        if name in objective.shared
        else torch.cat([block[name] for block in blocks])[own]
        for name, value in blocks[0].items()
    }


def _draw_block(
    objective: Any, data: np.ndarray, settings: TrainSettings, step: int, block: int
) -> dict[str, Tensor]:
    """Return everything random of one block's rows, and what all rows of the step share."""
    device = next(objective.parameters()).device
    # Numbers that are drawn on a GPU need not cross over to it; nor does anything wait for them.
    source = device if device.type == "cuda" else torch.device("cpu")
    x_data = torch.from_numpy(data[_draw_rows(len(data), settings, step, block)])
    if device.type == "cuda":  # A copy from other memory would wait for all work of the device.
        x_data = x_data.pin_memory()
    x_data = x_data.to(device, non_blocking=True)
    drawn = objective.draw(
        x_data,
        generator(settings.seed, "draw", step, block, device=source),
        generator(settings.seed, "shared", step, device=source),
    )
    return {name: value.to(device) for name, value in drawn.items()}


def _draw_rows(num_samples: int, settings: TrainSettings, step: int, block: int) -> np.ndarray:
    """Return a block's samples: of all samples once, or as many as asked for, independently."""
    start = block * BLOCK_SIZE
    stop = min(start + BLOCK_SIZE, settings.global_batch_size, num_samples)
    if settings.global_batch_size >= num_samples:
        return np.arange(start, stop)
    random = generator(settings.seed, "batch", step, block)
    return torch.randint(num_samples, (stop - start,), generator=random).numpy()
