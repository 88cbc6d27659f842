"""Exact likelihoods of the probability-flow ODE; no stochastic trace estimates."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from bnce_dist.core.ode import VelocityField, midpoint_step, time_grid
from bnce_dist.core.path import ProductPath

Jacobian = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""Returns a map's derivatives, ``(batch, dim, dim)``, where it is, ``(batch, dim)``."""


def jacobian(
    function: Callable[[Tensor], Tensor], z: Tensor, chunk_size: int | None = None
) -> Tensor:
    """Return the Jacobian of a map that treats every row of its batch alone.

    Args:
        function: Maps ``(batch, dim)`` to ``(batch, dim)``, row by row.
        z: Where, ``(batch, dim)``.
        chunk_size: Columns computed at once; fewer take less memory (default: all).

    Returns: ``(batch, dim, dim)``, outputs before inputs.
    """
    basis = torch.eye(z.shape[1], device=z.device, dtype=z.dtype)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (direction.expand_as(z),))[1]

    return torch.vmap(column, out_dims=2, chunk_size=chunk_size)(basis)


def reverse_jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return what ``jacobian`` does, by one backward pass per output through a common graph.

    Faster than forward derivatives where the function is deep and nothing in it batches over
    directions, as in message passing.

    Args:
        function: Maps ``(batch, dim)`` to ``(batch, dim)``, row by row.
        z: Where, ``(batch, dim)``.

    Returns: ``(batch, dim, dim)``, outputs before inputs.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        outputs = function(z).sum(0)
        rows = [torch.autograd.grad(output, z, retain_graph=True)[0] for output in outputs]
    return torch.stack(rows, dim=1)


def exact_divergence(
    velocity: VelocityField, z: Tensor, t: Tensor, chunk_size: int | None = None
) -> Tensor:
    """Return the trace of the velocity's Jacobian, from one forward derivative per coordinate.

    Args:
        velocity: The field.
        z: Points, ``(batch, dim)``.
        t: Times, ``(batch,)``.
        chunk_size: Derivatives computed at once (default: all).

    Returns: ``(batch,)``.
    """
    return jacobian(lambda x: velocity(x, t), z, chunk_size).diagonal(dim1=1, dim2=2).sum(1)


@torch.no_grad()
def log_density_along_ode(
    velocity: VelocityField,
    path: ProductPath,
    z_data: Tensor,
    num_steps: int,
    *,
    time_exponent: float = 1.0,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Return the log density that the continuous flow gives to data.

    .. math:: \log q(z_0) = \log p_1(z_1) + \int_0^1 \nabla \cdot v_t(z_t)\, dt

    integrated from the data to the prior by the midpoint rule; the error is second order in the
    step. For the solver's own samples ``sample_with_log_density`` has no such error.

    Args:
        velocity: The field.
        path: From data to prior.
        z_data: Points at ``t = 0``, ``(batch, dim)``.
        num_steps: Number of midpoint steps.
        time_exponent: Above 1 the steps shorten towards the data.
        chunk_size: Derivatives computed at once (default: all).

    Returns: ``(batch,)`` [nats].
    Raises: InputError: no steps.
    Source: Chen et al. (2018), eq. 8.
    """
    times = time_grid(num_steps, 0.0, 1.0, time_exponent, like=z_data)
    z, log_volume = z_data, z_data.new_zeros(len(z_data))
    for t, t_next in pairwise(times):
        step = t_next - t
        halfway = z + 0.5 * step * velocity(z, t.expand(len(z)))
        t_halfway = (t + 0.5 * step).expand(len(z))
        log_volume += step * exact_divergence(velocity, halfway, t_halfway, chunk_size)
        z = path.wrap(z + step * velocity(halfway, t_halfway))
    return path.log_prior(z) + log_volume


@torch.no_grad()
def sample_with_log_density(
    velocity: VelocityField,
    path: ProductPath,
    z_prior: Tensor,
    num_steps: int,
    *,
    time_exponent: float = 1.0,
    differentiate: Jacobian = jacobian,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return samples and the log density of exactly the map that produced them.

    Every midpoint step is a map of its own; its log determinant is taken from its full Jacobian,

    .. math:: \log q(z_0) = \log p_1(z_1) - \sum_k \log |\det \partial z_{k+1} / \partial z_k|

    so the densities belong to the samples at any number of steps, without a discretisation error.

    Args:
        velocity: The field.
        path: From data to prior.
        z_prior: Samples at ``t = 1``, ``(batch, dim)``.
        num_steps: Number of midpoint steps.
        time_exponent: Above 1 the steps shorten towards the data.
        differentiate: ``jacobian`` or ``reverse_jacobian``, whichever is faster for the field.

    Returns: The samples of ``ode.midpoint``, ``(batch, dim)``; ``(batch,)`` [nats]; and at which
        of them the map turned space inside out, ``(batch,)`` bool. Where it does it is not one to
        one, and the density is that of one of several ways (`free_energy.shift_by_folds`).
    Raises: InputError: no steps.

    Examples:
        A field that stretches by ``e`` lowers the log density by 1:

        >>> from bnce_dist.core.interpolant import LinearInterpolant
        >>> path, z_prior = ProductPath(LinearInterpolant(), 1), torch.zeros(1, 1)
        >>> _, log_density, _ = sample_with_log_density(lambda z, t: -z, path, z_prior, 200)
        >>> log_density - path.log_prior(z_prior)
        tensor([-1.0000])
    """
    times = time_grid(num_steps, 1.0, 0.0, time_exponent, like=z_prior)
    z, log_density = z_prior, path.log_prior(z_prior)
    inverted = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for t, t_next in pairwise(times):

        def step(z: Tensor, t: Tensor = t, t_next: Tensor = t_next) -> Tensor:
            return midpoint_step(velocity, z, t, t_next)

        sign, log_determinant = torch.linalg.slogdet(differentiate(step, z))
        log_density, inverted = log_density - log_determinant, inverted ^ (sign < 0)
        z = path.wrap(step(z))
    return z, log_density, inverted
