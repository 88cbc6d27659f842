r"""From gradients by positions to gradients by bonds, angles and torsions, without a graph.

Changing one internal coordinate moves a part of the molecule as a rigid body: along a bond, about
the normal of an angle, about the axis of a torsion. The gradient by it is therefore the summed
gradient of that part, or its summed torque, projected on the axis of the motion. All sums are one
product with a matrix of zeros and ones, however deep the tree of atoms.
"""

import torch
from torch import Tensor, nn

from bnce_dist.chem.coordinates.vectors import cross, dot, unit
from bnce_dist.chem.coordinates.zmatrix import ZMatrix


class Torques(nn.Module):
    r"""The transpose of the Jacobian of positions by the coordinates of a Z-matrix.

    With an atom :math:`i` placed by :math:`b` and :math:`a`, and sums over the atoms :math:`d`
    that move with it,

    .. math:: \partial_r = \hat e \cdot \sum_d g_d, \qquad
              \partial_\theta,\ \partial_\omega =
              \hat n \cdot \sum_d (x_d - x_b) \times g_d

    where :math:`\hat e` points from b to i, and :math:`\hat n` is the normal of the plane
    (a, b, i) for an angle and points from a to b for a torsion.

    Args:
        zmatrix: The atoms by which each atom is placed.
    """

    rows: Tensor
    moved: Tensor

    def __init__(self, zmatrix: ZMatrix) -> None:
        super().__init__()
        num_atoms = zmatrix.num_atoms
        self.sizes = (num_atoms - 1, num_atoms - 3)
        self.register_buffer("rows", torch.tensor(zmatrix.rows))
        moved = torch.zeros(sum(self.sizes), num_atoms, dtype=torch.float64)
        for row, atoms in enumerate(_moved_by_bonds(zmatrix) + _moved_by_torsions(zmatrix)):
            moved[row, sorted(atoms)] = 1
        self.register_buffer("moved", moved)

    def forward(self, positions: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients by bonds, angles and torsions, in the order of the rows.

        Args:
            positions: ``(atoms, 3, batch)`` [nm].
            gradient: Of a scalar by them, ``(atoms, 3, batch)``.

        Returns: ``(atoms - 1, batch)``, ``(atoms - 2, batch)`` and ``(atoms - 3, batch)``.
        """
        atom, bonded, angle, _ = self.rows.T
        both = torch.cat((gradient, cross(positions, gradient)), dim=1)
        sums = (self.moved @ both.flatten(1)).unflatten(1, both.shape[1:])
        of_bonds, of_torsions = sums.split(self.sizes)
        origin = positions.index_select(0, bonded[1:])
        arm = unit(positions.index_select(0, atom[1:]) - origin)
        axis = unit(origin[1:] - positions.index_select(0, angle[2:]))
        normal = unit(cross(arm[1:], axis))
        return (
            dot(arm, of_bonds[:, :3]),
            dot(normal, _about(origin[1:], of_bonds[1:])),
            dot(axis[1:], _about(origin[2:], of_torsions)),
        )


def _about(origin: Tensor, sums: Tensor) -> Tensor:
    """Return torques about an origin, from forces and torques about zero, ``(rows, 6, batch)``."""
    force, torque = sums.split(3, dim=1)
    return torque - cross(origin, force)


def _moved_by_bonds(zmatrix: ZMatrix) -> list[set[int]]:
    """Return for ``rows[1:]`` the atoms that a bond or an angle moves: those beyond the atom."""
    beyond = {row[0]: {row[0]} for row in zmatrix.rows}
    # The first atom stays where it is, and the second one leaves it what is bonded to it.
    for atom, bonded, *_ in reversed(zmatrix.rows[2:]):
        beyond[bonded] |= beyond[atom]
    return [beyond[row[0]] for row in zmatrix.rows[1:]]


def _moved_by_torsions(zmatrix: ZMatrix) -> list[set[int]]:
    """Return for ``rows[3:]`` the atoms that a torsion moves: siblings placed by it go along."""
    by_bonds = zip(zmatrix.rows[1:], _moved_by_bonds(zmatrix), strict=True)
    moved = {row[0]: atoms for row, atoms in by_bonds}
    place = {row[0]: row[1:3] for row in zmatrix.rows[3:]}
    for atom, bonded, angle, torsion in reversed(zmatrix.rows[3:]):
        if place.get(torsion) == (bonded, angle):
            moved[torsion] = moved[torsion] | moved[atom]
    return [moved[row[0]] for row in zmatrix.rows[3:]]
