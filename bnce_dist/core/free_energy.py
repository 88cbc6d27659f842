"""Free-energy differences between states of a weighted ensemble."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnce_dist.core.errors import InputError
from bnce_dist.core.weights import Weights


@dataclass(frozen=True)
class FreeEnergyDifference:
    """``f(state) - f(rest)`` with its bootstrap error.

    Args:
        value_kT: The difference [kT]; positive when the state is the rarer one.
        stderr_kT: Standard deviation over bootstrap replicates [kT].
        interval_kT: Their 2.5th and 97.5th percentile [kT].
        num_in_state: Samples inside the state.
        num_samples: Samples in all.
        weight_in_state: Probability of the state.
    """

    value_kT: float
    stderr_kT: float
    interval_kT: tuple[float, float]
    num_in_state: int
    num_samples: int
    weight_in_state: float


def delta_f(
    log_weights: ArrayLike,
    in_state: ArrayLike,
    *,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyDifference:
    r"""Return the free energy of a state relative to everything else.

    .. math:: \Delta f = -\ln \frac{\sum_{in} w}{\sum_{out} w}

    The bootstrap resamples independent samples; correlated ones need a resampling of blocks.

    Args:
        log_weights: Unnormalised, ``(samples,)`` [nats]; zeros for an unweighted ensemble.
        in_state: Whether each sample is inside the state, ``(samples,)`` bool.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: lengths differ, ``in_state`` is not boolean, or one side of the division
        is empty in the samples or in a replicate, so that no error bar exists.
    """
    weights = Weights(np.asarray(log_weights)).normalised
    inside = _checked_state(in_state, len(weights), num_bootstrap)
    rng = np.random.default_rng(seed)
    rows = (rng.integers(len(weights), size=len(weights)) for _ in range(num_bootstrap))
    replicates = np.array([_log_ratio(weights[row], inside[row]) for row in rows])
    return _difference(_log_ratio(weights, inside), replicates, inside)


def corrected_delta_f(
    log_weights: ArrayLike,
    log_weights_exact: ArrayLike,
    in_state: ArrayLike,
    *,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyDifference:
    r"""Return a free energy from many approximate weights, corrected by a few exact ones.

    .. math:: \Delta f = \Delta f^{approx}_{1 \dots n}
              + \left(\Delta f^{exact}_{1 \dots m} - \Delta f^{approx}_{1 \dots m}\right)

    The bracket estimates the error that the approximate density makes. Both of its terms are of
    the same samples, so most of their noise cancels; the bootstrap, which resamples the first
    ``m`` samples and the others apart, carries what is left of it into the error bar. The
    approximate weights may be any function of the sample: clipped, or exact where it matters.

    Args:
        log_weights: From the approximate density, ``(n,)`` [nats].
        log_weights_exact: From the exact density of the first samples, ``(m,)`` [nats].
        in_state: Whether each sample is inside the state, ``(n,)`` bool.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: as for `delta_f`, or more exact weights than samples.
    Source: Giles (2008), Oper. Res. 56, 607: the two-level case of multilevel Monte Carlo.
    """
    weights = Weights(np.asarray(log_weights)).normalised
    exact = Weights(np.asarray(log_weights_exact)).normalised
    inside = _checked_state(in_state, len(weights), num_bootstrap)
    count = len(exact)
    if count > len(weights):
        raise InputError(
            "log_weights_exact",
            expected=f"at most {len(weights)}, one per sample",
            got=count,
            remedy="give the exact weights of the first samples only",
        )

    def estimate(first: NDArray[np.int64], others: NDArray[np.int64]) -> float:
        rows = np.concatenate([first, others])
        return (
            _log_ratio(weights[rows], inside[rows])
            + _log_ratio(exact[first], inside[first])
            - _log_ratio(weights[first], inside[first])
        )

    rng = np.random.default_rng(seed)
    every = np.arange(len(weights))
    parts = every[:count], every[count:]
    replicates = np.array([
        estimate(*(rng.choice(part, size=len(part)) if len(part) else part for part in parts))
        for _ in range(num_bootstrap)
    ])  # fmt: skip
    return _difference(estimate(*parts), replicates, inside)


def _checked_state(in_state: ArrayLike, num_samples: int, num_bootstrap: int) -> NDArray[np.bool_]:
    inside = np.asarray(in_state)
    if inside.dtype != np.bool_ or inside.shape != (num_samples,):
        raise InputError(
            "in_state",
            expected=f"{num_samples} booleans, one per log weight",
            got=f"{inside.dtype} of shape {inside.shape}",
            remedy="compare the samples' order parameter with the state's bounds",
        )
    if num_bootstrap < 2:
        raise InputError(
            "num_bootstrap", expected="at least 2", got=num_bootstrap, remedy="200 is enough"
        )
    return inside


def _log_ratio(weights: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return ln(weight outside / weight inside), not finite where one of them is zero."""
    weight_in, weight_out = float(weights[inside].sum()), float(weights[~inside].sum())
    return math.log(weight_out / weight_in) if weight_in and weight_out else math.nan


def _difference(
    value: float, replicates: NDArray[np.float64], inside: NDArray[np.bool_]
) -> FreeEnergyDifference:
    if not (math.isfinite(value) and np.isfinite(replicates).all()):
        raise InputError(
            "delta_f",
            expected="samples on both sides of the state, enough for every bootstrap replicate",
            got=f"{inside.sum()} of {len(inside)} samples inside the state",
            remedy="draw more samples or enrich the rarer side",
        )
    low, high = np.percentile(replicates, [2.5, 97.5])
    return FreeEnergyDifference(
        value_kT=value,
        stderr_kT=float(replicates.std(ddof=1)),
        interval_kT=(float(low), float(high)),
        num_in_state=int(inside.sum()),
        num_samples=len(inside),
        weight_in_state=1 / (1 + math.exp(value)),
    )
