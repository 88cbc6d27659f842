"""Bonds, angles and torsions of many conformations at once, with analytic gradients.

The terms here know the geometry; what a length, an angle or a torsion costs is a function of its
own (``coordinate_functions``), which returns its energy ``(batch,)`` [kJ/mol] and its derivative
by each coordinate. Everything works on positions laid out ``(3, atoms, batch)``: with the batch
last, the gather of an atom's coordinates copies contiguous memory, which is what makes it fast on
a CPU. Each term returns its energy ``(batch,)`` [kJ/mol] and its gradient ``(3, atoms, batch)``
[kJ/mol/nm]; the energy is differentiable by autograd as well, and the two agree.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Floors that keep degenerate geometries finite; nothing physical comes near them.
_MIN_SQUARED_LENGTH = 1e-8
_MIN_SQUARED_AREA = 1e-14
_MAX_COSINE = 1 - 1e-6
Quadruple = tuple[int, int, int, int]


class PairVectors(nn.Module):
    """Vectors between pairs of atoms, and the transpose of that linear map.

    Every force of a molecular mechanics model is a sum of such antisymmetric pairs of forces,
    so one incidence matrix per term turns forces along vectors into forces on atoms.

    Args:
        pairs: Atom indices ``(first, second)`` of every vector; it points second -> first.
        num_atoms: Number of atoms.
    """

    first: Tensor
    second: Tensor
    incidence: Tensor

    def __init__(self, pairs: Sequence[tuple[int, int]], num_atoms: int) -> None:
        super().__init__()
        first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()
        incidence = torch.zeros(num_atoms, len(pairs), dtype=torch.float64)
        columns = torch.arange(len(pairs))
        incidence[first, columns] += 1
        incidence[second, columns] -= 1
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("incidence", incidence)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the vectors ``(3, pairs, batch)`` of positions ``(3, atoms, batch)``."""
        return positions.index_select(1, self.first) - positions.index_select(1, self.second)

    def transpose(self, vectors: Tensor) -> Tensor:
        """Add vectors ``(3, pairs, batch)`` to first atoms, subtract them from second ones."""
        return self.incidence @ vectors


class Bonds(nn.Module):
    """Functions of bond lengths.

    Args:
        bonds: Atom indices of each bond.
        energy: The function of the lengths ``(bonds, batch)`` [nm].
        num_atoms: Number of atoms.
    """

    def __init__(
        self, bonds: Sequence[tuple[int, int]], energy: nn.Module, *, num_atoms: int
    ) -> None:
        super().__init__()
        self.vectors = PairVectors(bonds, num_atoms)
        self.energy = energy

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and gradient."""
        vectors = self.vectors(positions)
        length = _squared(vectors).clamp_min(_MIN_SQUARED_LENGTH).sqrt()
        energy, slope = self.energy(length)
        return energy, self.vectors.transpose(slope / length * vectors)


class Angles(nn.Module):
    """Functions of angles between bonds.

    Args:
        angles: Atom indices of each angle, the vertex in the middle.
        energy: The function of the angles ``(angles, batch)`` [rad].
        num_atoms: Number of atoms.
    """

    def __init__(
        self, angles: Sequence[tuple[int, int, int]], energy: nn.Module, *, num_atoms: int
    ) -> None:
        super().__init__()
        arms = [(i, j) for i, j, _ in angles] + [(k, j) for _, j, k in angles]
        self.arms = PairVectors(arms, num_atoms)
        self.energy = energy

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and gradient."""
        arms = self.arms(positions)
        inverse_length = _squared(arms).clamp_min(_MIN_SQUARED_LENGTH).rsqrt()
        units = arms * inverse_length
        left, right = units.chunk(2, dim=1)
        cosine = (left * right).sum(0).clamp(-_MAX_COSINE, _MAX_COSINE)
        energy, by_angle = self.energy(torch.acos(cosine))
        slope = -by_angle * (1 - cosine * cosine).rsqrt()  # dE/dcos
        towards = torch.cat([right - cosine * left, left - cosine * right], dim=1)
        gradient = torch.cat([slope, slope]) * inverse_length * towards
        return energy, self.arms.transpose(gradient)


class Torsions(nn.Module):
    """Functions of torsions.

    The geometry of each quadruple is evaluated once, and its functions are given the sine and
    cosine of the angle: most need no inverse trigonometric function, which is singular at its
    ends.

    Args:
        quadruples: Atom indices of each torsion.
        energy: The function of cosines and sines, both ``(quadruples, batch)``.
        num_atoms: Number of atoms.

    Source: Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996) for the gradient.
    """

    def __init__(
        self, quadruples: Sequence[Quadruple], energy: nn.Module, *, num_atoms: int
    ) -> None:
        super().__init__()
        ends = [(i, j) for i, j, _, _ in quadruples] + [(end, k) for _, _, k, end in quadruples]
        self.vectors = PairVectors(ends + [(k, j) for _, j, k, _ in quadruples], num_atoms)
        self.energy = energy

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and gradient."""
        start, end, axis = self.vectors(positions).chunk(3, dim=1)  # j->i, k->l, j->k
        m, n = _cross(axis, start), _cross(axis, end)
        m_squared = _squared(m).clamp_min(_MIN_SQUARED_AREA)
        n_squared = _squared(n).clamp_min(_MIN_SQUARED_AREA)
        axis_squared = _squared(axis).clamp_min(_MIN_SQUARED_LENGTH)
        axis_length = axis_squared.sqrt()
        scale = m_squared.rsqrt() * n_squared.rsqrt()
        cosine = (m * n).sum(0) * scale
        sine = axis_length * (start * n).sum(0) * scale
        energy, slope = self.energy(cosine, sine)

        start_gradient = (slope * axis_length / m_squared) * m
        end_gradient = (-slope * axis_length / n_squared) * n
        start_along = (start * axis).sum(0) / axis_squared
        end_along = (end * axis).sum(0) / axis_squared
        axis_gradient = -start_along * start_gradient - end_along * end_gradient
        gradient = torch.cat([start_gradient, end_gradient, axis_gradient], dim=1)
        return energy, self.vectors.transpose(gradient)


def _squared(vectors: Tensor) -> Tensor:
    return (vectors * vectors).sum(0)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    # Cyclic shifts of contiguous planes: five times faster here than torch.linalg.cross.
    return (a.roll(-1, 0) * b - a * b.roll(-1, 0)).roll(-1, 0)
