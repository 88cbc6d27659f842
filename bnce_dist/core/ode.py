"""Integration of the probability-flow ODE, from noise (t = 1) to data (t = 0) or back."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError

VelocityField = Callable[[Tensor, Tensor], Tensor]
"""Maps points ``(batch, dim)`` and times ``(batch,)`` to velocities ``(batch, dim)``."""


def midpoint_step(velocity: VelocityField, z: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Return ``z`` moved from time ``t`` to ``t_next`` by one explicit midpoint step.

    Args:
        velocity: The field.
        z: Points, ``(batch, dim)``.
        t: Scalar.
        t_next: Scalar.

    Returns: ``(batch, dim)``.
    """
    step = t_next - t
    halfway = z + 0.5 * step * velocity(z, t.expand(len(z)))
    return z + step * velocity(halfway, (t + 0.5 * step).expand(len(z)))


def time_grid(
    num_steps: int, t_start: float, t_end: float, time_exponent: float, like: Tensor
) -> Tensor:
    """Return the ``num_steps + 1`` times of a solver, uniform in ``t**(1 / time_exponent)``.

    Args:
        num_steps: Number of steps.
        t_start: First time.
        t_end: Last time.
        time_exponent: Above 1 the steps shorten towards the data.
        like: Tensor whose device and precision the times take.

    Raises: InputError: no steps.
    """
    if num_steps < 1:
        raise InputError(
            "num_steps", expected="at least 1", got=num_steps, remedy="50 is a good value"
        )
    first, last = t_start ** (1 / time_exponent), t_end ** (1 / time_exponent)
    uniform = torch.linspace(first, last, num_steps + 1, device=like.device, dtype=like.dtype)
    return uniform**time_exponent


@torch.no_grad()
def midpoint(
    velocity: VelocityField,
    z: Tensor,
    num_steps: int,
    t_start: float = 1.0,
    t_end: float = 0.0,
    wrap: Callable[[Tensor], Tensor] | None = None,
    time_exponent: float = 1.0,
) -> Tensor:
    """Integrate with a fixed number of midpoint steps (two evaluations each).

    Args:
        velocity: The field.
        z: Points at ``t_start``, ``(batch, dim)``.
        num_steps: Number of steps.
        t_start: 1 to sample, 0 to encode.
        t_end: 0 to sample, 1 to encode.
        wrap: Applied after every step, e.g. ``path.wrap``.
        time_exponent: Above 1 the steps shorten towards the data.

    Returns: Points at ``t_end``, ``(batch, dim)``.
    Raises: InputError: no steps.

    Examples:
        Back from ``t = 1`` along ``dz/dt = z``:

        >>> midpoint(lambda z, t: z, torch.ones(1, 1), num_steps=50)
        tensor([[0.3679]])
    """
    times = time_grid(num_steps, t_start, t_end, time_exponent, like=z)
    for t, t_next in pairwise(times):
        z = midpoint_step(velocity, z, t, t_next)
        z = wrap(z) if wrap else z
    return z
