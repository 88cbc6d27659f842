"""What a length, an angle or a torsion costs: energies and their derivatives.

Functions of lengths and angles are given the coordinate, ``(terms, batch)``, functions of
torsions its cosine and sine. They return the energy ``(batch,)`` [kJ/mol], summed over the terms,
and its derivative by each coordinate, ``(terms, batch)`` [kJ/mol/nm or kJ/mol/rad].
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnce_dist.chem.potentials.bonded import Quadruple
from bnce_dist.chem.potentials.expressions.program import Program, Table
from bnce_dist.chem.potentials.expressions.tree import Expression, derivative


class Harmonic(nn.Module):
    r"""A spring, :math:`\frac{k}{2} (x - x_0)^2`.

    Args:
        rest: Equilibrium values, ``(terms,)`` [nm or rad].
        stiffness: Force constants, ``(terms,)`` [kJ/mol/nm^2 or kJ/mol/rad^2].
    """

    rest: Tensor
    stiffness: Tensor

    def __init__(self, rest: Tensor, stiffness: Tensor) -> None:
        super().__init__()
        self.register_buffer("rest", rest[:, None])
        self.register_buffer("stiffness", stiffness[:, None])

    def forward(self, coordinate: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative."""
        stretch = coordinate - self.rest
        slope = self.stiffness * stretch
        return 0.5 * (slope * stretch).sum(0), slope


class ExpressionOf(nn.Module):
    """An expression of one coordinate.

    Args:
        name: What the coordinate is called in the expression.
        energy: The expression [kJ/mol].
        parameters: Its other variables, ``(terms, 1)`` each.
        tables: Its tabulated functions.

    Raises: InputError: the expression has an unknown variable.
    """

    def __init__(
        self,
        name: str,
        energy: Expression,
        parameters: Mapping[str, Tensor],
        tables: Mapping[str, Table],
    ) -> None:
        super().__init__()
        results = [energy, derivative(energy, name)]
        self.program = Program(results, [name], parameters, tables)

    def forward(self, coordinate: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative."""
        energy, slope = self.program(coordinate)
        return energy.expand_as(coordinate).sum(0), slope.expand_as(coordinate)


class OfTorsionAngle(nn.Module):
    """A function of the torsion itself, in (-pi, pi].

    Args:
        energy: The function of an angle.
    """

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative."""
        return self.energy(_torsion_angle(cosine, sine))


class FourierTerm(NamedTuple):
    """One Fourier term ``k (1 + cos(n w - phase))`` of a torsion.

    Args:
        atoms: The four atoms of the torsion.
        periodicity: n.
        phase_rad: Phase [rad].
        amplitude: k [kJ/mol].
    """

    atoms: Quadruple
    periodicity: int
    phase_rad: float
    amplitude: float


class FourierSeries(nn.Module):
    r"""Cosines of torsions, :math:`\sum_n k_n (1 + \cos(n \omega - \gamma_n))`.

    The multiples of the angle follow from its sine and cosine by the addition theorem.

    Args:
        terms: The Fourier terms; several may share a quadruple.
        quadruples: The quadruples, each once.
    """

    offset: Tensor
    cosine_amplitude: Tensor
    sine_amplitude: Tensor

    def __init__(self, terms: Sequence[FourierTerm], quadruples: Sequence[Quadruple]) -> None:
        super().__init__()
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

    def forward(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative."""
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


class RyckaertBellemans(nn.Module):
    r"""Powers of cosines, :math:`\sum_n c_n \cos^n \psi`, with :math:`\psi = \omega - \pi`.

    Args:
        coefficients: c_0 to c_5, ``(6, torsions)`` [kJ/mol].
    """

    coefficients: Tensor

    def __init__(self, coefficients: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients[:, :, None])

    def forward(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative."""
        x = -cosine  # of psi
        energy, by_x = torch.zeros_like(x), torch.zeros_like(x)
        for coefficient in self.coefficients.flip(0):
            by_x = energy + x * by_x
            energy = coefficient + x * energy
        return energy.sum(0), by_x * sine


class PeriodicMap(nn.Module):
    r"""Energies over two torsions, by bicubic interpolation (CMAP).

    The slopes on the grid are those of periodic cubic splines.

    Args:
        grids: Energies at multiples of 2 pi / size of the first torsion (rows) and the second
            (columns), ``(maps, size, size)`` [kJ/mol].
        map_index: Which map each pair of torsions has, ``(pairs,)``.

    Source: MacKerell, Feig and Brooks, J. Comput. Chem. 25, 1400 (2004).
    """

    coefficients: Tensor
    first_patch: Tensor

    def __init__(self, grids: Tensor, map_index: Tensor) -> None:
        super().__init__()
        self.size = grids.shape[1]
        self.register_buffer("coefficients", _bicubic_coefficients(grids))
        self.register_buffer("first_patch", (map_index * self.size**2)[:, None])

    def forward(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative, of torsions that are first in a pair and then second."""
        angle = _torsion_angle(cosine, sine) / (2 * math.pi) * self.size
        corner = angle.detach().floor()
        fraction = angle - corner
        row, column = corner.long().remainder(self.size).chunk(2)
        patch = self.first_patch + row * self.size + column
        # (power of the first, power of the second, pairs, batch)
        table = self.coefficients.index_select(2, patch.flatten()).unflatten(2, patch.shape)
        u, v = fraction.chunk(2)
        by_power = _cubic(table.unbind(1), v)
        energy = _cubic(by_power.unbind(0), u)
        by_first = _cubic_slope(by_power.unbind(0), u)
        by_second = _cubic(_cubic_slope(table.unbind(1), v).unbind(0), u)
        slope = torch.cat([by_first, by_second]) * (self.size / (2 * math.pi))
        return energy.sum(0), slope


def _torsion_angle(cosine: Tensor, sine: Tensor) -> Tensor:
    """Return the angle; zero where atoms on a line leave it undefined, and its derivative too."""
    undefined = cosine * cosine + sine * sine < 0.5
    return torch.atan2(sine, torch.where(undefined, 1, cosine))


def _bicubic_coefficients(grids: Tensor) -> Tensor:
    """Return the coefficients of all patches, ``(4, 4, maps * size * size)``."""
    size = grids.shape[1]
    ahead = torch.eye(size, dtype=torch.float64).roll(1, 1)  # takes the value of the next point
    behind = ahead.T
    # The slopes of a cubic spline: s_{i-1} + 4 s_i + s_{i+1} = 3 (y_{i+1} - y_{i-1}).
    identity = torch.eye(size, dtype=torch.float64)
    slope = torch.linalg.solve(behind + 4 * identity + ahead, 3 * (ahead - behind))
    # A cubic on the unit interval from values and slopes at its ends.
    ends = torch.stack([identity, ahead, slope, ahead @ slope])
    hermite = torch.tensor(
        [[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]], dtype=torch.float64
    )
    cubic = torch.einsum("pe,eij->pij", hermite, ends)
    return (cubic[:, None, None] @ grids @ cubic[:, None].mT).flatten(2)


def _cubic(coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    constant, linear, quadratic, cubic = coefficients
    return constant + x * (linear + x * (quadratic + x * cubic))


def _cubic_slope(coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    _, linear, quadratic, cubic = coefficients
    return linear + x * (2 * quadratic + x * (3 * cubic))
