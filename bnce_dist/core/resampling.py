"""Systematic resampling: from weighted samples to equally weighted ones, with little noise."""

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError


def systematic_resampling(
    log_weights: Tensor, num_draws: int, generator: torch.Generator
) -> Tensor:
    """Return which samples to take, each about ``num_draws`` times its normalised weight.

    A sample is taken that many times up to rounding, and exactly so on average.

    Args:
        log_weights: Unnormalised, ``(samples,)`` [nats]; ``-inf`` is never taken.
        num_draws: How many to take.
        generator: Of the one random number.

    Returns: Indices in increasing order, ``(num_draws,)`` int64.
    Raises: InputError: fewer than one draw, a NaN or ``inf``, or no positive weight.
    Source: Douc, Cappe and Moulines (2005), section 2.4.
    """
    if num_draws < 1:
        raise InputError(
            "number of resampled conformations",
            expected="at least 1",
            got=num_draws,
            remedy="ask for more",
        )
    if log_weights.isnan().any() or not log_weights.amax().isfinite():
        raise InputError(
            "log_weights",
            expected="no NaN or inf, at least one above -inf",
            got=f"largest {float(log_weights.amax()):g}",
            remedy="check reduced potentials and log densities of the samples",
        )
    return systematic_ancestors(log_weights, num_draws, generator)


def systematic_ancestors(
    log_weights: Tensor, num_draws: int, generator: torch.Generator | None
) -> Tensor:
    """Return what `systematic_resampling` does, unchecked: it never waits for the device."""
    cumulative = log_weights.double().softmax(0).cumsum(0)
    offset = torch.empty(1, dtype=torch.float64, device=log_weights.device)
    steps = torch.arange(num_draws, dtype=torch.float64, device=log_weights.device)
    points = (steps + offset.uniform_(generator=generator)) / num_draws
    # Strictly above the point: a sample without weight adds nothing, and is never the first.
    chosen = torch.searchsorted(cumulative / cumulative[-1], points, right=True)
    return chosen.clamp(max=len(log_weights) - 1)
