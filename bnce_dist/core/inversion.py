"""Where a sampler's map came from: the exact density that it gives to any point."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bnce_dist.core.divergence import Jacobian, jacobian
from bnce_dist.core.ode import VelocityField, midpoint_step, time_grid
from bnce_dist.core.path import ProductPath

_NUM_PICARD, _NUM_NEWTON = 8, 12
# Of a coordinate in model space, whose scale is 1; float32 rounds to a hundredth of it.
_TOLERANCE = 2e-5
_LONGEST_STEP = 0.5


@torch.no_grad()
def invert_with_log_density(
    velocity: VelocityField,
    path: ProductPath,
    z_data: Tensor,
    num_steps: int,
    *,
    time_exponent: float = 1.0,
    differentiate: Jacobian = jacobian,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return which noise a sampler turns into given points, and the density it gives to them.

    The map of ``divergence.sample_with_log_density`` is undone step by step, by fixed-point
    iteration from a step of the solver in the other direction, and by Newton's method where that
    does not converge. So the density is that of the sampler itself, without a discretisation error.

    Args:
        velocity: The field.
        path: From data to prior.
        z_data: Points at ``t = 0``, ``(batch, dim)``.
        num_steps: Midpoint steps of the sampler.
        time_exponent: Of the sampler's steps.
        differentiate: ``jacobian`` or ``reverse_jacobian``, whichever is faster for the field.

    Returns: Points at ``t = 1``, ``(batch, dim)``; log densities of ``z_data``, ``(batch,)``
        [nats]; and whether each point was found, ``(batch,)`` bool. A point that no noise leads to,
        or that a step turning space inside out leads to, is not.
    Raises: InputError: no steps.
    """
    times = time_grid(num_steps, 1.0, 0.0, time_exponent, like=z_data)
    z, log_density = z_data, z_data.new_zeros(len(z_data))
    found = torch.ones(len(z), dtype=torch.bool, device=z.device)
    for t, t_next in reversed(list(pairwise(times))):

        def step(z: Tensor, t: Tensor = t, t_next: Tensor = t_next) -> Tensor:
            return midpoint_step(velocity, z, t, t_next)

        start = _undo(step, path, z, midpoint_step(velocity, z, t_next, t), differentiate)
        found &= path.wrap(z - step(start)).abs().amax(1) < 5 * _TOLERANCE
        sign, log_determinant = torch.linalg.slogdet(differentiate(step, start))
        found &= sign > 0
        log_density, z = log_density - log_determinant, path.wrap(start)
    return z, path.log_prior(z) + log_density, found


def _undo(
    step: Callable[[Tensor], Tensor],
    path: ProductPath,
    reached: Tensor,
    guess: Tensor,
    differentiate: Jacobian,
) -> Tensor:
    """Return the points that a step takes to those it reached, as well as they can be found."""
    start = guess
    for _ in range(_NUM_PICARD):
        start = start + path.wrap(reached - step(start))
    for _ in range(_NUM_NEWTON):
        residual = path.wrap(reached - step(start))
        open_ = residual.abs().amax(1) > _TOLERANCE
        if not open_.any():
            break
        moves = torch.linalg.solve(differentiate(step, start[open_]), residual[open_])
        longest = moves.abs().amax(1, keepdim=True)
        start[open_] += moves * (_LONGEST_STEP / longest).clamp(max=1)
    return start
