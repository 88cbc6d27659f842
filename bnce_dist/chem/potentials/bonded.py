"""Bonds, angles and torsions of many conformations at once, with analytic gradients.

Everything here works on positions laid out ``(3, atoms, batch)``: with the batch last, the
gather of an atom's coordinates copies contiguous memory, which is what makes it fast on a CPU.
Each term returns its energy ``(batch,)`` [kJ/mol] and its gradient ``(3, atoms, batch)``
[kJ/mol/nm]; the energy is differentiable by autograd as well, and the two agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Floors that keep degenerate geometries finite; nothing physical comes near them.
_MIN_SQUARED_LENGTH = 1e-8
_MIN_SQUARED_AREA = 1e-14
_MAX_COSINE = 1 - 1e-6


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


class HarmonicBonds(nn.Module):
    r"""Harmonic bonds, :math:`\frac{k}{2} (r - r_0)^2`.

    Args:
        bonds: Atom indices of each bond.
        length_nm: Equilibrium lengths, ``(bonds,)`` [nm].
        stiffness: Force constants, ``(bonds,)`` [kJ/mol/nm^2].
        num_atoms: Number of atoms.
    """

    length_nm: Tensor
    stiffness: Tensor

    def __init__(
        self,
        bonds: Sequence[tuple[int, int]],
        length_nm: Tensor,
        stiffness: Tensor,
        *,
        num_atoms: int,
    ) -> None:
        super().__init__()
        self.vectors = PairVectors(bonds, num_atoms)
        self.register_buffer("length_nm", length_nm[:, None])
        self.register_buffer("stiffness", stiffness[:, None])

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and gradient."""
        vectors = self.vectors(positions)
        length = _squared(vectors).clamp_min(_MIN_SQUARED_LENGTH).sqrt()
        stretch = length - self.length_nm
        tension = self.stiffness * stretch
        energy = 0.5 * (tension * stretch).sum(0)
        return energy, self.vectors.transpose(tension / length * vectors)


class HarmonicAngles(nn.Module):
    r"""Harmonic angles, :math:`\frac{k}{2} (\theta - \theta_0)^2`.

    Args:
        angles: Atom indices of each angle, the vertex in the middle.
        angle_rad: Equilibrium angles, ``(angles,)`` [rad].
        stiffness: Force constants, ``(angles,)`` [kJ/mol/rad^2].
        num_atoms: Number of atoms.
    """

    angle_rad: Tensor
    stiffness: Tensor

    def __init__(
        self,
        angles: Sequence[tuple[int, int, int]],
        angle_rad: Tensor,
        stiffness: Tensor,
        *,
        num_atoms: int,
    ) -> None:
        super().__init__()
        arms = [(i, j) for i, j, _ in angles] + [(k, j) for _, j, k in angles]
        self.arms = PairVectors(arms, num_atoms)
        self.register_buffer("angle_rad", angle_rad[:, None])
        self.register_buffer("stiffness", stiffness[:, None])

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and gradient."""
        arms = self.arms(positions)
        inverse_length = _squared(arms).clamp_min(_MIN_SQUARED_LENGTH).rsqrt()
        units = arms * inverse_length
        left, right = units.chunk(2, dim=1)
        cosine = (left * right).sum(0).clamp(-_MAX_COSINE, _MAX_COSINE)
        bend = torch.acos(cosine) - self.angle_rad
        torque = self.stiffness * bend
        energy = 0.5 * (torque * bend).sum(0)
        slope = -torque * (1 - cosine * cosine).rsqrt()  # dE/dcos
        towards = torch.cat([right - cosine * left, left - cosine * right], dim=1)
        gradient = torch.cat([slope, slope]) * inverse_length * towards
        return energy, self.arms.transpose(gradient)


class TorsionTerm(NamedTuple):
    """One Fourier term ``k (1 + cos(n w - phase))`` of a torsion.

    Args:
        atoms: The four atoms of the torsion.
        periodicity: n.
        phase_rad: Phase [rad].
        amplitude: k [kJ/mol].
    """

    atoms: tuple[int, int, int, int]
    periodicity: int
    phase_rad: float
    amplitude: float


class PeriodicTorsions(nn.Module):
    r"""Fourier torsions, :math:`\sum_n k_n (1 + \cos(n \omega - \gamma_n))`.

    The geometry of each quadruple is evaluated once, whatever its number of terms, and the
    multiples of the angle follow from its sine and cosine by the addition theorem, so that no
    inverse trigonometric function (singular at its ends) is needed.

    Args:
        terms: The Fourier terms; several may share a quadruple.
        num_atoms: Number of atoms.

    Source: Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996) for the gradient.
    """

    offset: Tensor
    cosine_amplitude: Tensor
    sine_amplitude: Tensor

    def __init__(self, terms: Sequence[TorsionTerm], *, num_atoms: int) -> None:
        super().__init__()
        quadruples = list(dict.fromkeys(term.atoms for term in terms))
        ends = [(i, j) for i, j, _, _ in quadruples] + [(end, k) for _, _, k, end in quadruples]
        self.vectors = PairVectors(ends + [(k, j) for _, j, k, _ in quadruples], num_atoms)
        order = max((term.periodicity for term in terms), default=0)
        amplitudes = torch.zeros(2, order, len(quadruples), 1, dtype=torch.float64)
        for atoms, periodicity, phase_rad, amplitude in terms:
            phase = torch.tensor(phase_rad, dtype=torch.float64)
            row = quadruples.index(atoms)
            amplitudes[0, periodicity - 1, row] += amplitude * phase.cos()
            amplitudes[1, periodicity - 1, row] += amplitude * phase.sin()
        offset = torch.tensor(sum(term.amplitude for term in terms), dtype=torch.float64)
        self.register_buffer("offset", offset)
        self.register_buffer("cosine_amplitude", amplitudes[0])
        self.register_buffer("sine_amplitude", amplitudes[1])

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
        sine = -axis_length * (start * n).sum(0) * scale
        energy, slope = self._fourier_series(cosine, sine)

        start_gradient = (-slope * axis_length / m_squared) * m
        end_gradient = (slope * axis_length / n_squared) * n
        start_along = (start * axis).sum(0) / axis_squared
        end_along = (end * axis).sum(0) / axis_squared
        axis_gradient = -start_along * start_gradient - end_along * end_gradient
        gradient = torch.cat([start_gradient, end_gradient, axis_gradient], dim=1)
        return energy, self.vectors.transpose(gradient)

    def _fourier_series(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy ``(batch,)`` and its slope dE/dw ``(quadruples, batch)``."""
        energy, slope = torch.zeros_like(cosine), torch.zeros_like(cosine)
        multiple_cosine, multiple_sine = cosine, sine
        amplitudes = zip(self.cosine_amplitude, self.sine_amplitude, strict=True)
        for order, (a, b) in enumerate(amplitudes, start=1):
            energy = energy + a * multiple_cosine + b * multiple_sine
            slope = slope + order * (b * multiple_cosine - a * multiple_sine)
            multiple_cosine, multiple_sine = (
                multiple_cosine * cosine - multiple_sine * sine,
                multiple_sine * cosine + multiple_cosine * sine,
            )
        return energy.sum(0) + self.offset, slope


def _squared(vectors: Tensor) -> Tensor:
    return (vectors * vectors).sum(0)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    # Cyclic shifts of contiguous planes: five times faster here than torch.linalg.cross.
    return (a.roll(-1, 0) * b - a * b.roll(-1, 0)).roll(-1, 0)
