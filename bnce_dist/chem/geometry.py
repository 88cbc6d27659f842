"""Scalars of a geometry: distances, angles, torsion angles and signed volumes."""

from collections.abc import Sequence

import networkx as nx
import torch
from torch import Tensor

from bnce_dist.core.errors import InputError


def dihedral(positions_nm: Tensor, quadruple: Sequence[int]) -> Tensor:
    r"""Return the torsion angle about the bond between the second and the third atom.

    .. math:: \omega = \operatorname{atan2}(|b_2|\, b_1 \cdot n,\ m \cdot n),
              \quad m = b_1 \times b_2,\ n = b_2 \times b_3

    Args:
        positions_nm: Atom positions, ``(..., atoms, 3)`` [nm].
        quadruple: Four atom indices.

    Returns: ``(...)`` [rad] in (-pi, pi], IUPAC sign: trans is pi, clockwise is positive.

    Examples:
        >>> cis = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]])
        >>> gauche = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
        >>> dihedral(torch.stack([cis, gauche]), (0, 1, 2, 3))
        tensor([0.0000, 1.5708])
    """
    first, second, third, fourth = (positions_nm[..., atom, :] for atom in quadruple)
    b1, b2, b3 = second - first, third - second, fourth - third
    m, n = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    sine = torch.linalg.vector_norm(b2, dim=-1) * (b1 * n).sum(-1)
    return torch.atan2(sine, (m * n).sum(-1))


def distance(positions_nm: Tensor, pair: Sequence[int]) -> Tensor:
    """Return how far two atoms are apart, ``(...)`` [nm].

    Args:
        positions_nm: Atom positions, ``(..., atoms, 3)`` [nm].
        pair: Two atom indices.
    """
    first, second = (positions_nm[..., atom, :] for atom in pair)
    return torch.linalg.vector_norm(second - first, dim=-1)


def bend(positions_nm: Tensor, triple: Sequence[int]) -> Tensor:
    """Return the angle at the second of three atoms, ``(...)`` [rad] in [0, pi].

    Args:
        positions_nm: Atom positions, ``(..., atoms, 3)`` [nm].
        triple: Three atom indices.

    Examples:
        >>> bend(torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 0]]), (0, 1, 2))
        tensor(0.7854)
    """
    first, second, third = (positions_nm[..., atom, :] for atom in triple)
    b1, b2 = first - second, third - second
    # Of the arc cosine nothing would be left of the digits near 0 and pi.
    sine = torch.linalg.vector_norm(torch.linalg.cross(b1, b2), dim=-1)
    return torch.atan2(sine, (b1 * b2).sum(-1))


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


Quadruple = tuple[int, int, int, int]


def with_torsions(
    positions_nm: Tensor,
    bonds: Sequence[tuple[int, int]],
    quadruples: Sequence[Quadruple],
    angles: Tensor,
) -> Tensor:
    """Return one copy of a structure per row of ``angles``, turned about bonds to these torsions.

    Bond lengths, angles and chirality stay; atoms may clash.

    Args:
        positions_nm: One structure, ``(atoms, 3)`` [nm].
        bonds: Pairs of bonded atoms.
        quadruples: The torsions to set, each turned about the bond of its middle atoms.
        angles: ``(structures, torsions)`` [rad].

    Returns: ``(structures, atoms, 3)`` [nm].
    Raises: InputError: a bond to turn about is in a ring.
    """
    structures = positions_nm.repeat(len(angles), 1, 1)
    for column, quadruple in enumerate(quadruples):
        moving = _atoms_beyond(bonds, quadruple)
        turn = angles[:, column] - dihedral(structures, quadruple)
        structures[:, moving] = _rotate_about_bond(structures, quadruple, moving, turn)
    return structures


def _atoms_beyond(bonds: Sequence[tuple[int, int]], quadruple: Quadruple) -> list[int]:
    """Return the atoms on the far side of the quadruple's middle bond."""
    near, far = quadruple[1], quadruple[2]
    graph = nx.Graph(bonds)
    graph.remove_edge(near, far)
    found = nx.node_connected_component(graph, far)
    if near in found:
        raise InputError(
            f"torsion {quadruple}",
            expected="a bond outside rings",
            got="a bond of a ring",
            remedy="choose another torsion",
        )
    return sorted(found)


def _rotate_about_bond(
    positions_nm: Tensor, quadruple: Quadruple, moving: list[int], turn: Tensor
) -> Tensor:
    """Rodrigues' rotation of the moving atoms about the middle bond."""
    origin = positions_nm[:, quadruple[2], None]
    axis = torch.nn.functional.normalize(origin - positions_nm[:, quadruple[1], None], dim=-1)
    arms = positions_nm[:, moving] - origin
    cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
    along = (arms * axis).sum(-1, keepdim=True) * axis
    across = torch.linalg.cross(axis.expand_as(arms), arms)
    return origin + along + cosine * (arms - along) + sine * across
