"""What every Cartesian model sees of a conformation: its atoms, edges and distances."""

import contextlib
import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_EPSILON = 1e-8
"""Squared distances are clamped here, which keeps all derivatives of the distance finite."""


class Edges(NamedTuple):
    """All ordered pairs of atoms, receivers before senders.

    Args:
        distance: ``(batch, atoms, atoms)``.
        direction: Unit vector to the sender, ``(batch, atoms, atoms, 3)``.
        weight: 1 for a pair of different real atoms, else 0, ``(batch, atoms, atoms)``.
    """

    distance: Tensor
    direction: Tensor
    weight: Tensor


def dense_edges(positions: Tensor, mask: Tensor) -> Edges:
    """Return the edges of a batch of conformations.

    Args:
        positions: ``(batch, atoms, 3)``.
        mask: 1 for real atoms, else 0, ``(batch, atoms)``.
    """
    difference = positions[:, None, :, :] - positions[:, :, None, :]
    distance = difference.square().sum(-1).clamp(min=_EPSILON).sqrt()
    different = 1 - torch.eye(positions.shape[1], device=mask.device, dtype=mask.dtype)
    weight = mask[:, :, None] * mask[:, None, :] * different
    return Edges(distance, difference / distance[..., None], weight)


class RadialBasis(nn.Module):
    """Gaussians of a distance, with equidistant centres from zero.

    Args:
        num_features: How many.
        max_distance: Centre of the last; the width is this divided by their number.
    """

    centres: Tensor

    def __init__(self, num_features: int, max_distance: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.width = max_distance / num_features
        centres = torch.linspace(0, max_distance, num_features)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Return ``(..., num_features)`` for distances ``(...)``."""
        # Where exp underflows, which is nearly everywhere, exp2 is many times faster on CPUs.
        scaled = (distance[..., None] - self.centres) * (math.log2(math.e) ** 0.5 / self.width)
        return torch.exp2(-scaled.square())


def checked_atoms(
    positions: Tensor, node_features: Tensor, mask: Tensor | None, num_node_features: int
) -> tuple[Tensor, Tensor]:
    """Return the features of every atom of the batch and its mask as numbers.

    Args:
        positions: ``(batch, atoms, 3)``.
        node_features: ``(atoms, features)``, or ``(batch, atoms, features)``.
        mask: Which atoms are real, ``(batch, atoms)``; all if absent.
        num_node_features: How many features the model was made for.

    Returns: ``(batch, atoms, features)`` and ``(batch, atoms)``, of the positions' precision.
    Raises: InputError: the shapes do not belong together, or padding is not masked.
    """
    batch, num_atoms = positions.shape[:2]
    shape = (batch, num_atoms, num_node_features)
    if mask is None:
        _require_no_padding(node_features)
        mask = positions.new_ones(shape[:2])
    if node_features.shape not in (shape, shape[1:]) or mask.shape != shape[:2]:
        raise InputError(
            f"node features and mask of {batch} x {num_atoms} atoms",
            expected=f"shapes {shape} or {shape[1:]}, and {shape[:2]}",
            got=f"{tuple(node_features.shape)} and {tuple(mask.shape)}",
            remedy="make both for this molecule and this model, padded like the positions",
        )
    return node_features.to(positions).expand(shape), mask.to(positions)


def _require_no_padding(node_features: Tensor) -> None:
    """Refuse a batch of molecules of different sizes that nobody said how many atoms they have."""
    if node_features.ndim != 3 or torch.compiler.is_compiling():
        return
    padded = (node_features == 0).all(-1).any(-1)
    if padded.any():
        raise InputError(
            "mask of a batch of different molecules",
            expected="one, since features that are all zero are padding",
            got=f"none, with {int(padded.sum())} of {len(padded)} molecules padded",
            remedy="give mask, 1 for real atoms and 0 for padding, (batch, atoms)",
        )


def require_memory(positions: Tensor, numbers_per_edge: int) -> None:
    """Refuse, before anything is allocated, a batch whose dense edges cannot fit.

    Args:
        positions: ``(batch, atoms, 3)``.
        numbers_per_edge: What a model holds at once for every pair of atoms.

    Raises: InputError: more than the device has.
    """
    if torch.compiler.is_compiling():
        return
    batch, num_atoms = positions.shape[:2]
    bytes_per_sample = num_atoms**2 * numbers_per_edge * positions.element_size()
    available = _device_bytes(positions.device)
    if batch * bytes_per_sample > available:
        largest = available // bytes_per_sample
        raise InputError(
            f"memory for the dense edges of {batch} x {num_atoms} atoms",
            expected=f"at most {available / 1e9:.1f} GB",
            got=f"{batch * bytes_per_sample / 1e9:.1f} GB",
            remedy=f"use batches of at most {largest}"
            if largest
            else "use fewer layers and channels, or a device with more memory",
        )


def _device_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return _memory_bytes()


@functools.cache
def _memory_bytes() -> int:
    """Return the machine's memory, or what a container may have of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        return min(machine, int(_CONTAINER_LIMIT.read_text()))
    return machine
