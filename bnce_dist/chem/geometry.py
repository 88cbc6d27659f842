"""Scalars of a geometry: torsion angles and signed volumes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def dihedral(positions_nm: Tensor, quadruple: Sequence[int]) -> Tensor:
    r"""Return the torsion angle about the bond between the second and the third atom.

    .. math:: \omega = \operatorname{atan2}(|b_2|\, b_1 \cdot n,\ m \cdot n),
              \quad m = b_1 \times b_2,\ n = b_2 \times b_3

    Args:
        positions_nm: Atom positions, ``(..., atoms, 3)`` [nm].
        quadruple: Four atom indices.

    Returns: ``(...)`` [rad] in (-pi, pi], IUPAC sign: trans is pi, clockwise is positive.
    """
    first, second, third, fourth = (positions_nm[..., atom, :] for atom in quadruple)
    b1, b2, b3 = second - first, third - second, fourth - third
    m, n = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    sine = torch.linalg.vector_norm(b2, dim=-1) * (b1 * n).sum(-1)
    return torch.atan2(sine, (m * n).sum(-1))


def signed_volume(positions_nm: Tensor, centre: Sequence[int]) -> Tensor:
    r"""Return the signed volume spanned by three substituents of a tetrahedral centre.

    .. math:: V = (a - c) \cdot ((b - c) \times (d - c))

    Args:
        positions_nm: Atom positions, ``(..., atoms, 3)`` [nm].
        centre: Atom indices ``(c, a, b, d)``: the centre, then its substituents in order.

    Returns: ``(...)`` [nm^3]; its sign is the handedness of the centre.
    """
    c, a, b, d = (positions_nm[..., atom, :] for atom in centre)
    return ((a - c) * torch.linalg.cross(b - c, d - c)).sum(-1)
