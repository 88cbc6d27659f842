"""Vectors along dimension 1 of ``(rows, 3, batch)``, which is far from the contiguous one."""

import torch
from torch import Tensor


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products, ``(rows, batch)``."""
    return (first * second).sum(1)


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors divided by their lengths."""
    return vectors / dot(vectors, vectors).sqrt()[:, None]


def cross(first: Tensor, second: Tensor) -> Tensor:
    """Return the cross products."""
    ax, ay, az = first.unbind(1)
    bx, by, bz = second.unbind(1)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), dim=1)
