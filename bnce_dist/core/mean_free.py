"""The subspace of conformations whose mean position is zero: 3(N - 1) dimensions."""

import torch
from torch import Tensor


def zero_sum_basis(num_atoms: int) -> Tensor:
    """Return an orthonormal basis of the vectors that sum to zero, the Helmert basis.

    Column k is ``(1, ..., 1, -k, 0, ...)``, normalised.

    Returns: ``(num_atoms, num_atoms - 1)``, float64.
    """
    k = torch.arange(1, num_atoms, dtype=torch.float64)
    atom = torch.arange(num_atoms, dtype=torch.float64)[:, None]
    columns = (atom < k).double() - k * (atom == k).double()
    return columns / (k * (k + 1)).sqrt()


def to_mean_free(positions: Tensor, basis: Tensor) -> Tensor:
    """Return coordinates in the subspace; a common shift of all atoms does not change them.

    Args:
        positions: Any vector per atom, ``(batch, atoms, 3)``.
        basis: From ``zero_sum_basis``.

    Returns: ``(batch, 3 (atoms - 1))``.
    """
    return torch.einsum("ak,nac->nkc", basis, positions).flatten(1)


def from_mean_free(z: Tensor, basis: Tensor) -> Tensor:
    """Return the vectors of mean zero that have coordinates ``z``, ``(batch, atoms, 3)``."""
    return torch.einsum("ak,nkc->nac", basis, z.unflatten(1, (-1, 3)))
