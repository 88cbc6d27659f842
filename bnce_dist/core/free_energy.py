"""Free-energy differences between a state and the rest of a weighted ensemble."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import calibrating_multiplicity, checked_weights
from bnce_dist.core.strata import BoolArray, FloatArray, Side, SideWeights, light_log_ratio

MIN_EXACT = 10
"""Exact weights on each side of the state, unless all samples there have one."""
_MIN_SAMPLES = 2
_MAX_FOLDED = 0.499


@dataclass(frozen=True)
class FreeEnergyDifference:
    """``f(state) - f(rest)`` with its bootstrap error and the evidence for believing it.

    Args:
        value_kT: The difference [kT]; positive when the state is the rarer one.
        stderr_kT: Standard deviation over bootstrap replicates [kT].
        interval_kT: 95 % interval [kT].
        num_in_state: Samples inside the state.
        num_samples: Samples in all.
        weight_in_state: Probability of the state.
        state: The weights inside.
        rest: The weights outside.
        largest_variance_share: Share of the variance that a single sample makes.
    """

    value_kT: float
    stderr_kT: float
    interval_kT: tuple[float, float]
    num_in_state: int
    num_samples: int
    weight_in_state: float
    state: SideWeights
    rest: SideWeights
    largest_variance_share: float

    def interval_reaching(self, shift_kT: float) -> tuple[float, float]:
        """Return the interval with an error of known sign and size beside the others [kT].

        Args:
            shift_kT: What would be added to the value if that error were put right [kT].
        """
        low, high = self.interval_kT
        return (
            self.value_kT - math.hypot(self.value_kT - low, min(shift_kT, 0.0)),
            self.value_kT + math.hypot(high - self.value_kT, max(shift_kT, 0.0)),
        )


def delta_f(
    log_weights: ArrayLike,
    in_state: ArrayLike,
    *,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyDifference:
    r"""Return the free energy of a state relative to everything else.

    .. math:: \Delta f = -\ln \frac{\sum_{in} w}{\sum_{out} w}

    The samples are taken as independent; correlated ones need a resampling of blocks. The weights
    are taken as exact; their own error, if they have one, is not in the error bar.

    Args:
        log_weights: Unnormalised, ``(samples,)`` [nats]; zeros for an unweighted ensemble.
        in_state: Whether each sample is inside the state, ``(samples,)`` bool.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: lengths differ, ``in_state`` is not boolean, a NaN or ``inf``, or a side
        has fewer than two samples or no weight.

    Examples:
        A state that holds a tenth of the weight is ``ln 9`` above the rest:

        >>> in_state = np.arange(4000) < 400
        >>> difference = delta_f(np.zeros(4000), in_state)
        >>> f"{difference.value_kT:.2f} +- {difference.stderr_kT:.2f} kT"
        '2.20 +- 0.06 kT'
    """
    weights, inside = _checked(log_weights, in_state, num_bootstrap)
    sides = [Side.split(weights[s], weights[s], np.ones(s.sum())) for s in (inside, ~inside)]
    return _difference(sides[0], sides[1], inside, num_bootstrap, seed)


def log_weight_difference(log_weights: ArrayLike, in_state: ArrayLike) -> float:
    """Return the value of `delta_f` alone, for samples whose error is judged otherwise [kT].

    Args:
        log_weights: Unnormalised, ``(samples,)`` [nats].
        in_state: Whether each sample is inside the state, ``(samples,)`` bool.

    Returns: Infinite where a side is empty.
    """
    weights, inside = np.asarray(log_weights, dtype=np.float64), np.asarray(in_state)
    with np.errstate(divide="ignore"):
        scaled = np.exp(weights - weights.max())
        return float(np.log(scaled[~inside].sum()) - np.log(scaled[inside].sum()))


def shift_by_folds(
    log_weights: ArrayLike, in_state: ArrayLike, inverted: ArrayLike
) -> float | None:
    r"""Return what a sampler's folds, counted once, would add to a free-energy difference.

    Where a map of noise to samples folds, several sheets of it lie over one place, and the density
    of a sample is that of its own sheet: unsigned weights count the place once for every sheet.
    With the sign of the map's determinant the sheets sum to one, which is its degree, as that of
    every map that a continuous flow can be shrunk to:

    .. math:: \int f = E\left[\operatorname{sign}(\det J) \, f / \rho\right]

    Args:
        log_weights: By each sample's own density, ``(samples,)`` [nats].
        in_state: Whether each sample is inside the state, ``(samples,)`` bool.
        inverted: Whether the map turned space inside out there, ``(samples,)`` bool.

    Returns: The difference of `delta_f` with and without the signs [kT], capped where folds hold
        half of a side; None where a side has no weight to tell.
    Source: Milnor (1965), Topology from the Differentiable Viewpoint, on the degree of a map.
    """
    weights, inside = np.asarray(log_weights, dtype=np.float64), np.asarray(in_state)
    if not all(np.isfinite(weights[side]).any() for side in (inside, ~inside)):
        return None
    scaled, folded = np.exp(weights - weights.max()), np.asarray(inverted)
    shares = [scaled[side & folded].sum() / scaled[side].sum() for side in (inside, ~inside)]
    of_state, of_rest = (math.log1p(-2 * min(float(share), _MAX_FOLDED)) for share in shares)
    return of_rest - of_state


def stratified_delta_f(
    log_weights: ArrayLike,
    log_weights_exact: ArrayLike,
    in_state: ArrayLike,
    *,
    num_random: int,
    inclusion: ArrayLike | None = None,
    num_bootstrap: int = 500,
    seed: int = 0,
) -> FreeEnergyDifference:
    r"""Return a free energy from many approximate weights and a few exact ones.

    Each side of the state is a heavy stratum ``H``, exact, and a light one ``L``, approximate and
    calibrated by those of its samples ``K`` that have exact weights, which were chosen with
    probabilities ``q``:

    .. math:: \Delta f = \ln W_{out} - \ln W_{in}, \qquad
              W = \sum_H w^{exact}
                  + \frac{\sum_K w^{exact} / q}{\sum_K w^{approx} / q} \sum_L w^{approx}

    ``H`` are the samples heavier, by approximate weight, than every one without an exact weight.
    Replicates weigh samples by exponential variables, so none is ever without samples. The interval
    takes Student's quantile at the freedom that the largest contributions leave to the variance,
    or reaches as far as the tail of the exact weights may hold weight that no sample shows, if
    that is further.

    Args:
        log_weights: From the approximate density, ``(n,)`` [nats]; ``-inf`` for none.
        log_weights_exact: From the exact density, ``(n,)`` [nats]; NaN where it was not computed.
            Rows as of `select_for_exact`.
        in_state: Whether each sample is inside the state, ``(n,)`` bool.
        num_random: How many of the first samples have an exact weight whatever they weigh.
        inclusion: Probability that each had of getting one, as of `select_for_exact`, ``(n,)``; by
            default the first ones alone calibrate, and others that are known are the heaviest.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: lengths differ, a NaN among the approximate weights, a side has no weight,
        fewer than two samples, or fewer than ten exact weights and others that are not.
    Source: Cochran (1977), Sampling Techniques, sections 5 and 6 (stratified ratio estimator);
        Horvitz & Thompson (1952), J. Am. Stat. Assoc. 47, 663 (unequal probabilities); Rubin
        (1981), Ann. Statist. 9, 130 (Bayesian bootstrap); Satterthwaite (1946).
    """
    weights, inside = _checked(log_weights, in_state, num_bootstrap)
    sides = _split(weights, log_weights_exact, inside, num_random, inclusion)
    return _difference(sides[0], sides[1], inside, num_bootstrap, seed)


def stratified_log_weights(
    log_weights: ArrayLike,
    log_weights_exact: ArrayLike,
    in_state: ArrayLike,
    *,
    num_random: int,
    inclusion: ArrayLike | None = None,
) -> FloatArray:
    """Return the log weights whose sums over the sides `stratified_delta_f` compares, ``(n,)``.

    Exact in the heavy stratum of each side; elsewhere approximate, shifted by the side's
    calibration [nats]. Arguments and errors are those of `stratified_delta_f`.
    """
    weights, inside = _checked(log_weights, in_state)
    exact = np.asarray(log_weights_exact, dtype=np.float64)
    result = weights.copy()
    for mask, side in zip(
        (inside, ~inside), _split(weights, exact, inside, num_random, inclusion), strict=True
    ):
        part = weights[mask] + light_log_ratio(side)
        part[side.heavy] = exact[mask][side.heavy]
        result[mask] = part
    return result


def exact_populations(
    log_weights: ArrayLike,
    log_weights_exact: ArrayLike,
    in_state: ArrayLike,
    *,
    num_random: int,
    inclusion: ArrayLike | None = None,
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Return what the tails of `stratified_delta_f` are fitted to, in the state and outside.

    Arguments and errors are those of `stratified_delta_f`.

    Returns: Of each side, exact log weights [nats] and how many samples each stands for.
    """
    weights, inside = _checked(log_weights, in_state)
    state, rest = _split(weights, log_weights_exact, inside, num_random, inclusion)
    return state.population(), rest.population()


def with_correction(
    estimate: FreeEnergyDifference, correction_kT: float, stderr_kT: float
) -> FreeEnergyDifference:
    """Return an estimate by approximate weights with their correction, measured elsewhere.

    Args:
        estimate: Its error is of sampling only.
        correction_kT: To be added [kT].
        stderr_kT: Standard error of the correction, independent of the estimate's [kT].
    """
    value = estimate.value_kT + correction_kT
    low, high = (
        math.hypot(end - estimate.value_kT, ndtri(0.975) * stderr_kT)
        for end in estimate.interval_kT
    )
    return replace(
        estimate,
        value_kT=value,
        stderr_kT=math.hypot(estimate.stderr_kT, stderr_kT),
        interval_kT=(value - low, value + high),
        weight_in_state=float(1 / (1 + np.exp(value))),
    )


def _split(
    weights: FloatArray,
    log_weights_exact: ArrayLike,
    inside: BoolArray,
    num_random: int,
    inclusion: ArrayLike | None,
) -> tuple[Side, Side]:
    exact = np.asarray(log_weights_exact, dtype=np.float64)
    if exact.shape != weights.shape or np.isposinf(exact).any():
        raise InputError(
            "log_weights_exact",
            expected=f"{len(weights)} values below inf, NaN where not computed",
            got=f"shape {exact.shape}, {np.isposinf(exact).sum()} inf",
            remedy="fill the rows without an exact density with NaN",
        )
    multiplicity = calibrating_multiplicity(exact, num_random, inclusion)
    for name, side in (("in the state", inside), ("outside the state", ~inside)):
        num_exact = int((~np.isnan(exact[side])).sum())
        if num_exact < min(MIN_EXACT, int(np.isfinite(weights[side]).sum())):
            raise InputError(
                f"exact log densities {name}",
                expected=f"at least {MIN_EXACT}, or of every sample there",
                got=f"{num_exact} of {side.sum()} samples",
                remedy="raise num_exact",
            )
    one, other = (Side.split(weights[s], exact[s], multiplicity[s]) for s in (inside, ~inside))
    return one, other


def _checked(
    log_weights: ArrayLike, in_state: ArrayLike, num_bootstrap: int = 2
) -> tuple[FloatArray, BoolArray]:
    weights, inside = checked_weights(log_weights, in_state)
    if num_bootstrap < 2:
        raise InputError(
            "num_bootstrap", expected="at least 2", got=num_bootstrap, remedy="200 is enough"
        )
    num_inside = int(inside.sum())
    if min(num_inside, len(inside) - num_inside) < _MIN_SAMPLES:
        raise InputError(
            "delta_f",
            expected=f"samples on both sides of the state, at least {_MIN_SAMPLES}",
            got=f"{num_inside} of {len(inside)} samples inside the state",
            remedy="draw more samples or enrich the rarer side",
        )
    for name, side in (("in the state", inside), ("outside the state", ~inside)):
        if not np.isfinite(weights[side]).any():
            raise InputError(
                f"weights {name}",
                expected="at least one above zero",
                got=f"{side.sum()} samples, all of weight zero",
                remedy="draw more samples, or train the emulator on more of that side",
            )
    return weights, inside


def _difference(
    state: Side, rest: Side, inside: BoolArray, num_bootstrap: int, seed: int
) -> FreeEnergyDifference:
    value = rest.log_sum - state.log_sum
    rng = np.random.default_rng(seed)
    in_state, in_rest = (side.replicates(num_bootstrap, rng) for side in (state, rest))
    stderr = float((in_rest.log_sums - in_state.log_sums).std(ddof=1))
    squares = np.concatenate([np.square(side.influence) for side in (state, rest)])
    freedom = 2 * squares.sum() ** 2 / np.square(squares).sum()
    reach = float(stdtrit(freedom, 0.975)) * stderr
    state_weights, rest_weights = state.summary(in_state), rest.summary(in_rest)
    low = value - max(reach, state_weights.hidden_kT)
    high = value + max(reach, rest_weights.hidden_kT)
    return FreeEnergyDifference(
        value_kT=value,
        stderr_kT=stderr,
        interval_kT=(low, high),
        num_in_state=int(inside.sum()),
        num_samples=len(inside),
        weight_in_state=float(1 / (1 + np.exp(value))),
        state=state_weights,
        rest=rest_weights,
        largest_variance_share=float(squares.max() / squares.sum()),
    )
