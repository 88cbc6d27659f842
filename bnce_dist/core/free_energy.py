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
    weights, inside = Weights(np.asarray(log_weights)).normalised, np.asarray(in_state)
    if inside.dtype != np.bool_ or inside.shape != weights.shape:
        raise InputError(
            "in_state",
            expected=f"{len(weights)} booleans, one per log weight",
            got=f"{inside.dtype} of shape {inside.shape}",
            remedy="compare the samples' order parameter with the state's bounds",
        )
    if num_bootstrap < 2:
        raise InputError(
            "num_bootstrap", expected="at least 2", got=num_bootstrap, remedy="200 is enough"
        )
    rng = np.random.default_rng(seed)
    rows = (rng.integers(len(weights), size=len(weights)) for _ in range(num_bootstrap))
    sums = np.array([_sums(weights[row], inside[row]) for row in rows])
    if not sums.all():
        raise InputError(
            "delta_f",
            expected="samples on both sides of the state, enough for every bootstrap replicate",
            got=f"{inside.sum()} of {len(inside)} samples inside the state",
            remedy="draw more samples or enrich the rarer side",
        )
    weight_in, weight_out = _sums(weights, inside)
    replicates = np.log(sums[:, 1] / sums[:, 0])
    low, high = np.percentile(replicates, [2.5, 97.5])
    return FreeEnergyDifference(
        value_kT=math.log(weight_out / weight_in),
        stderr_kT=float(replicates.std(ddof=1)),
        interval_kT=(float(low), float(high)),
        num_in_state=int(inside.sum()),
        num_samples=len(inside),
        weight_in_state=weight_in,
    )


def _sums(weights: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[float, float]:
    return float(weights[inside].sum()), float(weights[~inside].sum())
