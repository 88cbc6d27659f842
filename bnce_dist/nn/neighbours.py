"""Pairs of atoms within a radius: the edges of molecules too large for all pairs."""

import functools
import importlib.util
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from bnce_dist.nn.conformation import require_memory

logger = logging.getLogger(__name__)

_NUMBERS_PER_PAIR = 6
"""What the distances of all pairs take, with their differences and masks."""


def neighbour_list(positions: Tensor, mask: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return all ordered pairs of real atoms of one molecule within a radius.

    Where torch-cluster is installed the pairs are found without the table of all distances.

    Args:
        positions: ``(batch, atoms, 3)``.
        mask: 1 for real atoms, else 0, ``(batch, atoms)``.
        radius: In the units of the positions.

    Returns: Receivers and senders, each ``(edges,)``, as places in ``batch x atoms``.
    Raises: InputError: too little memory for the distances, where they are needed.
    """
    positions = positions.detach()
    if (radius_graph := _radius_graph()) is not None:
        return _by_torch_cluster(radius_graph, positions, mask, radius)
    require_memory(positions, _NUMBERS_PER_PAIR)
    # The faster way by matrix products is off by more than the tolerances of positions.
    distance = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    real = mask.bool()
    near = (distance < radius) & real[:, :, None] & real[:, None, :]
    near.diagonal(dim1=1, dim2=2).fill_(False)
    molecule, receiver, sender = near.nonzero().T
    first = molecule * positions.shape[1]
    return first + receiver, first + sender


def _radius_graph() -> Callable[..., Tensor] | None:
    """Return the function of torch-cluster, where that is installed and works."""
    if importlib.util.find_spec("torch_cluster") is None:
        return None
    try:
        from torch_cluster import radius_graph
    except (ImportError, OSError) as error:  # of another version of torch
        _warn_once(f"torch-cluster is not used: {' '.join(str(error).split())[:200]}")
        return None
    return radius_graph


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _by_torch_cluster(
    radius_graph: Callable[..., Tensor], positions: Tensor, mask: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    batch, num_atoms = positions.shape[:2]
    real = mask.bool().flatten().nonzero().squeeze(1)
    molecule = torch.arange(batch, device=positions.device).repeat_interleave(num_atoms)
    # By default it keeps 32 neighbours of an atom and drops the others without a word.
    sender, receiver = radius_graph(
        positions.flatten(0, 1)[real], radius, molecule[real], max_num_neighbors=num_atoms
    )
    return real[receiver], real[sender]
