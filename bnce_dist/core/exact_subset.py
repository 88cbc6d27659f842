"""Which samples get an exact log density: some at random, others in proportion to their weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnce_dist.core.errors import InputError
from bnce_dist.core.strata import FloatArray

# Weights that are smaller by more than so many nats are drawn as if it were so many.
_LIGHTEST = 500.0


@dataclass(frozen=True, eq=False)
class ExactSubset:
    """Some of ``n`` samples, and how they came to be chosen.

    Args:
        rows: Which, sorted and distinct, ``(chosen,)``.
        inclusion: Probability that each of all samples had of being chosen, ``(n,)``.
    """

    rows: NDArray[np.int64]
    inclusion: FloatArray


def select_for_exact(
    log_weights: ArrayLike, in_state: ArrayLike, *, num_random: int, num_weighted: int
) -> ExactSubset:
    r"""Choose samples whose exact weights calibrate approximate ones.

    The first ones are as good as drawn at random. Of the others, half of `num_weighted` on each
    side of the state are drawn systematically, with probabilities in proportion to their weights
    ``w`` that are one for the heaviest. With the share ``f`` of the first ones, a sample is chosen
    with the probability

    .. math:: q = f + (1 - f) \min(1, c\, w).

    What exact weights are of approximate ones on a side, all that is asked of them, has the least
    error by samples drawn in proportion to weights, where the two scatter alike everywhere; those
    at random are for numbers that no weight decides.

    Args:
        log_weights: From the approximate density, ``(n,)`` [nats]; ``-inf`` for none.
        in_state: Whether each sample is inside the state, ``(n,)`` bool.
        num_random: How many of the first samples.
        num_weighted: How many of the others, on both sides together; fewer where a side has fewer
            with any weight.

    Raises: InputError: more random samples than there are, a NaN, or shapes that differ.
    Source: Madow (1949), Ann. Math. Statist. 20, 333 (systematic sampling with unequal
        probabilities); Cochran (1977), Sampling Techniques, section 9A.
    """
    weights, inside = checked_weights(log_weights, in_state)
    if not 0 <= num_random <= len(weights) or num_weighted < 0:
        raise InputError(
            "samples with an exact density",
            expected=f"0 to {len(weights)} at random and a number of others",
            got=f"{num_random} and {num_weighted}",
            remedy="evaluate fewer of them or draw more samples",
        )
    is_first = np.arange(len(weights)) < num_random
    share = num_random / max(len(weights), 1)
    chosen, inclusion = is_first.copy(), np.full(len(weights), share)
    for side in (inside, ~inside):
        if not np.isfinite(weights[side]).any():
            continue
        heaviest = weights[side].max()
        possible = side & np.isfinite(weights)
        scaled = np.exp(np.maximum(weights[possible] - heaviest, -_LIGHTEST))
        candidates = ~is_first[possible]
        drawn = np.minimum(_scale(scaled[candidates], num_weighted // 2) * scaled, 1.0)
        inclusion[possible] += (1 - share) * drawn
        steps = np.floor(np.cumsum(drawn[candidates]) + 0.5)
        chosen[np.flatnonzero(possible)[candidates]] = np.diff(steps, prepend=0.0) > 0
    return ExactSubset(np.flatnonzero(chosen), inclusion)


def _scale(weights: FloatArray, count: int) -> float:
    """Return ``c`` for which ``min(1, c w)`` sums to a count of the weights, or to all of them."""
    descending = np.sort(weights)[::-1]
    if count >= len(descending):
        return 1 / descending[-1] if len(descending) else 0.0
    # If so many of the heaviest are certain, the others share what is left.
    left = np.cumsum(descending[::-1])[::-1]
    scales = (count - np.arange(count + 1)) / left[: count + 1]
    return float(scales[np.argmax(scales * descending[: count + 1] <= 1)])


def checked_weights(
    log_weights: ArrayLike, in_state: ArrayLike
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return log weights and where samples are as arrays of one length.

    Raises: InputError: a NaN or ``inf``, no booleans, or shapes that differ.
    """
    weights, inside = np.asarray(log_weights, dtype=np.float64), np.asarray(in_state)
    num_bad = int((np.isnan(weights) | np.isposinf(weights)).sum())
    if weights.ndim != 1 or num_bad:
        raise InputError(
            "log_weights",
            expected="one list without NaN or inf",
            got=f"shape {weights.shape}, {num_bad} NaN or inf",
            remedy="find the samples whose density or potential is not finite",
        )
    if inside.dtype != np.bool_ or inside.shape != weights.shape:
        raise InputError(
            "in_state",
            expected=f"{len(weights)} booleans, one per log weight",
            got=f"{inside.dtype} of shape {inside.shape}",
            remedy="compare the samples' order parameter with the state's bounds",
        )
    return weights, inside


def calibrating_multiplicity(
    log_weights_exact: FloatArray, num_random: int, inclusion: ArrayLike | None
) -> FloatArray:
    """Return how many samples each exact weight stands for where it calibrates others, ``(n,)``.

    Args:
        log_weights_exact: ``(n,)`` [nats]; NaN where it was not computed.
        num_random: How many of the first samples were chosen whatever they weigh.
        inclusion: As of `select_for_exact`; without it the first samples alone calibrate, and those
            that are known besides are the heaviest of all, as versions before chose them.

    Raises: InputError: another shape, or a chosen sample that could not have been.
    """
    known = ~np.isnan(log_weights_exact)
    if inclusion is None:
        return np.where(known & (np.arange(len(known)) < num_random), 1.0, 0.0)
    probability = np.asarray(inclusion, dtype=np.float64)
    if probability.shape != known.shape or not (probability[known] > 0).all():
        raise InputError(
            "inclusion",
            expected=f"{len(known)} probabilities, above zero where the exact weight is known",
            got=f"shape {probability.shape}",
            remedy="take those of select_for_exact",
        )
    return np.where(known, 1 / np.where(known, probability, 1.0), 0.0)
