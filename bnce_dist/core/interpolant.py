r"""Interpolants between data (t = 0) and standard normal noise (t = 1).

.. math:: x_t = \alpha(t)\, x_{data} + \sigma(t)\, \epsilon

Every conversion below follows from the conditional means of the two ends,
:math:`v_t = \dot\alpha E[x_{data}|x_t] + \dot\sigma E[\epsilon|x_t]` and
:math:`\nabla \log p_t = -E[\epsilon|x_t] / \sigma`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError


class Interpolant(Protocol):
    """Two schedules and their time derivatives; each maps times ``(...)`` to ``(...)``."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the data."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the noise."""
        ...

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return the time derivative of ``alpha``."""
        ...

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return the time derivative of ``sigma``."""
        ...


@dataclass(frozen=True)
class LinearInterpolant:
    r"""Straight lines, :math:`\alpha = 1 - t,\ \sigma = t`."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return ``1 - t``."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Return ``t``."""
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return ``-1``."""
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return ``1``."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class TrigonometricInterpolant:
    r"""Variance preserving, :math:`\alpha = \cos(\pi t/2),\ \sigma = \sin(\pi t/2)`."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return ``cos(pi t / 2)``."""
        return torch.cos(0.5 * math.pi * t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return ``sin(pi t / 2)``."""
        return torch.sin(0.5 * math.pi * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return ``-(pi / 2) sin(pi t / 2)``."""
        return -0.5 * math.pi * torch.sin(0.5 * math.pi * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return ``(pi / 2) cos(pi t / 2)``."""
        return 0.5 * math.pi * torch.cos(0.5 * math.pi * t)


@dataclass(frozen=True)
class CircularInterpolant:
    r"""Diffusion of an angle, :math:`\theta_t = wrap(\theta_{data} + s\, t^{p} \epsilon)`.

    Several ``epsilon`` lead to one wrapped angle; the conditional mean over all of them still
    gives the exact velocity and score on the circle. At ``t = 1`` the angle is uniform up to a
    relative :math:`2 e^{-s^2/2}` (7e-4 for the default).

    Args:
        scale: Noise level at ``t = 1`` [rad].
        power: Exponent of time; above 1 the velocity vanishes at the data.
    """

    scale: float = 4.0
    power: float = 1.5

    def __post_init__(self) -> None:
        if not self.scale > 0 or not self.power >= 1:
            raise InputError(
                "circular interpolant",
                expected="scale > 0 and power >= 1",
                got=f"scale {self.scale}, power {self.power}",
                remedy="use the defaults, scale 4.0 and power 1.5",
            )

    def alpha(self, t: Tensor) -> Tensor:
        """Return ``1``."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return ``scale t^power`` [rad]."""
        return self.scale * t**self.power

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return ``0``."""
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return ``scale power t^(power - 1)``."""
        return self.scale * self.power * t ** (self.power - 1)


def interpolant_from_name(name: str) -> Interpolant:
    """Return the Euclidean interpolant called ``name``.

    Args:
        name: ``"linear"`` or ``"trigonometric"``.

    Raises: InputError: no interpolant has this name.

    Examples:
        >>> t = torch.tensor([0.0, 0.5, 1.0])
        >>> interpolant_from_name("linear").alpha(t)
        tensor([1.0000, 0.5000, 0.0000])
    """
    known: dict[str, Interpolant] = {
        "linear": LinearInterpolant(),
        "trigonometric": TrigonometricInterpolant(),
    }
    if name not in known:
        raise InputError.unknown("interpolant", name, known)
    return known[name]


def velocity_from_score(schedule: Interpolant, x_t: Tensor, score: Tensor, t: Tensor) -> Tensor:
    r"""Return the marginal velocity that belongs to ``score``, where ``alpha > 0``.

    .. math:: v = \frac{\dot\alpha}{\alpha} x
                  - \frac{\sigma}{\alpha}(\alpha\dot\sigma - \dot\alpha\sigma) \nabla\log p_t

    Args:
        schedule: The interpolant.
        x_t: Where, ``(batch, dim)``.
        score: Gradient of ``log p_t`` there, ``(batch, dim)``.
        t: Times, ``(batch,)``.

    Returns: ``(batch, dim)``.

    Examples:
        Standard normal data stay so on a variance-preserving path; nothing moves:

        >>> x, t = torch.tensor([[2.0]]), torch.tensor([0.5])
        >>> velocity_from_score(TrigonometricInterpolant(), x, -x, t).abs() < 1e-6
        tensor([[True]])
    """
    alpha, sigma, alpha_dot, sigma_dot = _schedules(schedule, t)
    return (alpha_dot * x_t - sigma * (alpha * sigma_dot - alpha_dot * sigma) * score) / alpha


def velocity_from_endpoint(
    schedule: Interpolant, x_t: Tensor, endpoint: Tensor, t: Tensor
) -> Tensor:
    r"""Return the marginal velocity that belongs to ``endpoint``, for ``t > 0``.

    .. math:: v = \dot\alpha E[x_{data}|x_t]
                  + \frac{\dot\sigma}{\sigma} (x_t - \alpha E[x_{data}|x_t])

    Args:
        schedule: The interpolant.
        x_t: Where, ``(batch, dim)``.
        endpoint: Conditional mean of the data there, ``(batch, dim)``.
        t: Times, ``(batch,)``.

    Returns: ``(batch, dim)``.
    """
    alpha, sigma, alpha_dot, sigma_dot = _schedules(schedule, t)
    return alpha_dot * endpoint + sigma_dot * (x_t - alpha * endpoint) / sigma


def _schedules(schedule: Interpolant, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    column = t[:, None]
    return (
        schedule.alpha(column),
        schedule.sigma(column),
        schedule.alpha_dot(column),
        schedule.sigma_dot(column),
    )
