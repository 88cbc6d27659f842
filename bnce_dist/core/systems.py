r"""Planar distributions with exact densities and exact samplers.

All of them live in the square :math:`[-2, 2]^2`: what little of their mass lies outside is far
below any divergence that a learned density resolves (each class says how much).
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from bnce_dist.core.errors import InputError

HALF_WIDTH = 2.0


class System(Protocol):
    """A distribution in the plane."""

    name: ClassVar[str]
    half_width: ClassVar[float]

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Return independent samples, ``(num_samples, 2)`` float64, on the generator's device."""
        ...

    def log_density(self, x: Tensor) -> Tensor:
        """Return the normalised log density; ``-inf`` outside the support.

        Args:
            x: ``(batch, 2)``.

        Returns: ``(batch,)`` [nats].
        """
        ...


@dataclass(frozen=True)
class EightGaussians:
    r"""Equal Gaussians at equal angles on a circle.

    .. math:: p(x) = \frac18 \sum_k N(x; R (\cos \tfrac{k\pi}4, \sin \tfrac{k\pi}4), s^2 I)

    Outside the square: 4e-24.

    Args:
        radius: ``R``.
        spread: ``s``.
    """

    radius: float = 1.0
    spread: float = 0.1

    name: ClassVar[str] = "gaussians8"
    half_width: ClassVar[float] = HALF_WIDTH

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Return independent samples, ``(num_samples, 2)`` float64."""
        angles = 0.25 * math.pi * _integers(8, num_samples, generator)
        return self.radius * _directions(angles) + self.spread * _normal(num_samples, generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Return the normalised log density, ``(batch,)`` [nats], for ``(batch, 2)``."""
        centres = self.radius * _directions(0.25 * math.pi * torch.arange(8).to(x))
        return _log_normal(x[:, None] - centres, self.spread).logsumexp(1) - math.log(8)


@dataclass(frozen=True)
class Checkerboard:
    """Uniform on every other cell of the square ``[-2, 2]^2``; nothing lies outside.

    Args:
        cells_per_side: Even, so that half of the cells are filled; the first one is.
    """

    cells_per_side: int = 10

    name: ClassVar[str] = "checkerboard"
    half_width: ClassVar[float] = HALF_WIDTH

    @property
    def cell_width(self) -> float:
        """Side of a cell."""
        return 2 * self.half_width / self.cells_per_side

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Return independent samples, ``(num_samples, 2)`` float64."""
        column = _integers(self.cells_per_side, num_samples, generator)
        row = 2 * _integers(self.cells_per_side // 2, num_samples, generator) + column % 2
        place = _uniform((num_samples, 2), generator)
        return self.cell_width * (torch.stack([column, row], 1) + place) - self.half_width

    def log_density(self, x: Tensor) -> Tensor:
        """Return the normalised log density, ``(batch,)`` [nats], for ``(batch, 2)``."""
        cell = torch.floor((x + self.half_width) / self.cell_width)
        inside = (x.abs() < self.half_width).all(1)
        filled = inside & (cell.sum(1) % 2 == 0)
        log_area = math.log(2 * self.half_width**2)
        return torch.where(filled, -log_area, -math.inf).to(x)


@dataclass(frozen=True)
class TwoMoons:
    r"""Two interleaved half circles of radius 1, blurred by a Gaussian.

    .. math:: p(x) = \frac1{2\pi} \sum_{k=\pm 1} \int_0^\pi
              N\left(x; k (\cos\theta - \tfrac12, \sin\theta - \tfrac14), s^2 I\right) d\theta

    The integral is a Gauss-Legendre sum, exact to rounding for the default spread.
    Outside the square: 2e-8.

    Args:
        spread: ``s``; at least 0.05, which the quadrature resolves.
    """

    spread: float = 0.1

    name: ClassVar[str] = "two_moons"
    half_width: ClassVar[float] = HALF_WIDTH

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Return independent samples, ``(num_samples, 2)`` float64."""
        side = 2 * _integers(2, num_samples, generator)[:, None] - 1
        angles = math.pi * _uniform((num_samples,), generator)
        return side * self._arc(angles) + self.spread * _normal(num_samples, generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Return the normalised log density, ``(batch,)`` [nats], for ``(batch, 2)``."""
        nodes, weights = (torch.from_numpy(array).to(x) for array in _gauss_legendre(128))
        arc = self._arc(0.5 * math.pi * (1 + nodes))
        log_weights = torch.log(0.25 * weights).repeat(2)
        terms = _log_normal(x[:, None] - torch.cat([arc, -arc]), self.spread)
        return (terms + log_weights).logsumexp(1)

    def _arc(self, angles: Tensor) -> Tensor:
        """Return points of the upper half circle, ``(angles, 2)``; the lower is its negative."""
        return _directions(angles) - torch.tensor([0.5, 0.25]).to(angles)


@dataclass(frozen=True)
class Rings:
    r"""Concentric circles of equal mass, blurred by a Gaussian.

    .. math:: p(x) = \frac1K \sum_k \frac{1}{2\pi s^2}
              e^{-(|x|^2 + R_k^2) / 2 s^2} I_0\left(\frac{|x| R_k}{s^2}\right)

    Outside the square: 1e-11.

    Args:
        radii: ``R_k``.
        spread: ``s``.
    """

    radii: tuple[float, ...] = (0.5, 1.0, 1.5)
    spread: float = 0.08

    name: ClassVar[str] = "rings"
    half_width: ClassVar[float] = HALF_WIDTH

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Return independent samples, ``(num_samples, 2)`` float64."""
        radii = torch.tensor(self.radii, dtype=torch.float64, device=generator.device)
        radius = radii[_integers(len(radii), num_samples, generator)]
        angles = 2 * math.pi * _uniform((num_samples,), generator)
        noise = self.spread * _normal(num_samples, generator)
        return radius[:, None] * _directions(angles) + noise

    def log_density(self, x: Tensor) -> Tensor:
        """Return the normalised log density, ``(batch,)`` [nats], for ``(batch, 2)``."""
        radii, variance = torch.tensor(self.radii).to(x), self.spread**2
        distance = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        # The scaled Bessel function takes the growth out of the exponent.
        bessel = torch.special.i0e(distance * radii / variance)
        terms = torch.log(bessel) - 0.5 * (distance - radii).square() / variance
        return terms.logsumexp(1) - math.log(2 * math.pi * variance * len(radii))


_SYSTEMS: dict[str, System] = {
    system.name: system for system in (EightGaussians(), Checkerboard(), TwoMoons(), Rings())
}
SYSTEMS = tuple(_SYSTEMS)
"""Names of all systems."""


def system_from_name(name: str) -> System:
    """Return the system called ``name``.

    Raises: InputError: no system has this name.
    """
    if name not in _SYSTEMS:
        raise InputError.unknown("system", name, SYSTEMS)
    return _SYSTEMS[name]


def grid(half_width: float, cells_per_side: int) -> tuple[Tensor, float]:
    """Return the centres of equal cells of a square, and the area of one.

    Args:
        half_width: The square is ``[-half_width, half_width]^2``.
        cells_per_side: Number of cells along each side.

    Returns: ``(cells_per_side^2, 2)`` float64, the second coordinate running fastest; the area.
    """
    width = 2 * half_width / cells_per_side
    line = width * (torch.arange(cells_per_side, dtype=torch.float64) + 0.5) - half_width
    return torch.cartesian_prod(line, line), width**2


@cache
def _gauss_legendre(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes in (-1, 1) and weights that sum to 2."""
    return np.polynomial.legendre.leggauss(num_nodes)


def _directions(angles: Tensor) -> Tensor:
    return torch.stack([torch.cos(angles), torch.sin(angles)], dim=-1)


def _log_normal(difference: Tensor, spread: float) -> Tensor:
    """Return the log density of an isotropic Gaussian in the plane, ``(..., 2)`` to ``(...)``."""
    return -0.5 * difference.square().sum(-1) / spread**2 - math.log(2 * math.pi * spread**2)


def _integers(end: int, num_samples: int, generator: torch.Generator) -> Tensor:
    return torch.randint(end, (num_samples,), generator=generator, device=generator.device)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _normal(num_samples: int, generator: torch.Generator) -> Tensor:
    return torch.randn(
        (num_samples, 2), generator=generator, device=generator.device, dtype=torch.float64
    )
