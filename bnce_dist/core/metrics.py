"""Distances between distributions, and free-energy profiles along an angle."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from bnce_dist.core.errors import InputError

FloatArray = NDArray[np.float64]


def log_normaliser_on_grid(log_density: ArrayLike, cell_volume: float) -> float:
    """Return the log integral of a density over a grid; 0 when it is normalised there.

    Args:
        log_density: At the cell centres, any shape [nats].
        cell_volume: Volume of one cell.
    """
    return float(logsumexp(np.asarray(log_density, dtype=np.float64))) + math.log(cell_volume)


def kl_divergence_on_grid(
    log_p: ArrayLike, log_q: ArrayLike, cell_volume: float, *, normalise: bool = True
) -> float:
    r"""Return :math:`\int p \log (p / q)` over a grid.

    Args:
        log_p: True log density at the cell centres, any shape [nats]; ``-inf`` outside its support.
        log_q: Model's log density at the same points [nats].
        cell_volume: Volume of one cell.
        normalise: Whether both are first normalised on the grid; otherwise they are taken as they
            are, and an error of the model's normalisation counts.

    Returns: The divergence [nats]; ``inf`` where the model misses part of the support.

    Examples:
        Two Gaussians whose means are a standard deviation apart:

        >>> x = np.linspace(-8, 8, 1601)
        >>> round(kl_divergence_on_grid(-0.5 * x**2, -0.5 * (x - 1) ** 2, 0.01), 6)
        0.5
    """
    log_p, log_q = np.asarray(log_p, dtype=np.float64), np.asarray(log_q, dtype=np.float64)
    if normalise:
        log_p = log_p - log_normaliser_on_grid(log_p, cell_volume)
        log_q = log_q - log_normaliser_on_grid(log_q, cell_volume)
    support = log_p > -np.inf
    log_ratio = log_p[support] - log_q[support]
    return float((np.exp(log_p[support]) * log_ratio).sum() * cell_volume)


def wasserstein_2(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    """Return the 2-Wasserstein distance of two weighted samples on the line.

    The optimal coupling pairs equal quantiles, so this is exact.

    Args:
        x: ``(samples,)``.
        y: ``(other_samples,)``.
        x_weights: Non-negative weights of ``x`` (default: equal).
        y_weights: Non-negative weights of ``y`` (default: equal).

    Returns: The distance, in the unit of ``x``.

    Examples:
        >>> wasserstein_2([0.0, 1.0], [3.0, 2.0])
        2.0
    """
    x_sorted, x_cumulative = _quantile_function(x, x_weights)
    y_sorted, y_cumulative = _quantile_function(y, y_weights)
    levels = np.sort(np.concatenate([[0.0], x_cumulative, y_cumulative]))
    widths, centres = np.diff(levels), 0.5 * (levels[1:] + levels[:-1])
    x_quantiles = x_sorted[np.searchsorted(x_cumulative, centres).clip(max=len(x_sorted) - 1)]
    y_quantiles = y_sorted[np.searchsorted(y_cumulative, centres).clip(max=len(y_sorted) - 1)]
    return math.sqrt((widths * (x_quantiles - y_quantiles) ** 2).sum())


def torus_wasserstein_2(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
    *,
    num_points: int = 500,
    seed: int = 0,
) -> float:
    """Return the 2-Wasserstein distance between resampled sets of angles.

    Both ensembles are resampled to ``num_points`` by their weights and matched optimally; two
    draws of one distribution are therefore a positive distance apart, which is the baseline.

    Args:
        x: Angles [rad], ``(samples, angles)``.
        y: Angles [rad], ``(other_samples, angles)``.
        x_weights: Non-negative weights of ``x`` (default: equal).
        y_weights: Non-negative weights of ``y`` (default: equal).
        num_points: Size of the matching; the time grows with its cube.
        seed: Of the resampling.

    Returns: The distance [rad].

    Examples:
        The way from 3.1 to -3.1 is short on a circle:

        >>> round(torus_wasserstein_2([[3.1]], [[-3.1]]), 4)
        0.0832
    """
    rng = np.random.default_rng(seed)
    x_points = _resample(x, x_weights, num_points, rng)
    y_points = _resample(y, y_weights, num_points, rng)
    difference = x_points[:, None] - y_points[None]
    difference -= 2 * math.pi * np.round(difference / (2 * math.pi))
    cost = np.square(difference).sum(2)
    return math.sqrt(cost[linear_sum_assignment(cost)].mean())


@dataclass(frozen=True, eq=False)
class FreeEnergyProfile:
    """``-ln p(angle)`` with a bootstrap band; empty bins are ``inf``.

    Args:
        centres: Bin centres [rad], ``(bins,)``.
        value_kT: Minus the log of the probability density per radian, ``(bins,)``.
        lower_kT: Lower edge of the 95 % band, ``(bins,)``.
        upper_kT: Upper edge of the 95 % band, ``(bins,)``.
    """

    centres: FloatArray
    value_kT: FloatArray
    lower_kT: FloatArray
    upper_kT: FloatArray


def free_energy_profile(
    angles: ArrayLike,
    weights: ArrayLike | None = None,
    num_bins: int = 60,
    *,
    limits: tuple[float, float] = (-math.pi, math.pi),
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyProfile:
    """Return the free energy along an angle; normalised, so profiles compare without alignment.

    Args:
        angles: In [-pi, pi] [rad], ``(samples,)``.
        weights: Non-negative weights (default: equal).
        num_bins: Bins over the full circle.
        limits: The circle; between others lies another quantity, and values beyond count in the
            outermost bins.
        num_bootstrap: Replicates behind the band; they resample independent samples.
        seed: Of the replicates.

    Examples:
        Three quarters of the angles are negative:

        >>> profile = free_energy_profile([-1.0, -0.5, -2.0, 1.0], num_bins=2)
        >>> f"{np.exp(profile.value_kT[1] - profile.value_kT[0]):.3f}"
        '3.000'
    """
    angles = np.asarray(angles, dtype=np.float64)
    probabilities = _normalised(weights, len(angles))
    edges = np.linspace(*limits, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, angles) - 1, 0, num_bins - 1)
    rng = np.random.default_rng(seed)
    rows = (rng.integers(len(angles), size=len(angles)) for _ in range(num_bootstrap))
    replicates = [_histogram(bins[row], probabilities[row], edges) for row in rows]
    low, high = np.percentile(replicates, [2.5, 97.5], axis=0)
    value = _histogram(bins, probabilities, edges)
    with np.errstate(divide="ignore"):
        return FreeEnergyProfile(
            0.5 * (edges[1:] + edges[:-1]), -np.log(value), -np.log(high), -np.log(low)
        )


def _histogram(bins: NDArray[np.intp], weights: FloatArray, edges: FloatArray) -> FloatArray:
    """Return the density per radian, or other unit of the edges, of weighted bin numbers."""
    counts = np.bincount(bins, weights, minlength=len(edges) - 1)
    return counts / counts.sum() * (len(edges) - 1) / (edges[-1] - edges[0])


def _normalised(weights: ArrayLike | None, num_samples: int) -> FloatArray:
    if weights is None:
        return np.full(num_samples, 1 / num_samples)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (num_samples,) or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise InputError(
            "weights",
            expected=f"{num_samples} finite weights >= 0, not all zero",
            got=f"shape {values.shape}, smallest {values.min(initial=np.inf)}",
            remedy="pass normalised weights, not their logarithms",
        )
    return values / values.sum()


def _quantile_function(x: ArrayLike, weights: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    values = np.asarray(x, dtype=np.float64)
    probability = _normalised(weights, len(values))
    # A sum of weights is rounded, and even 1e-16 is too much of a value without any.
    values, probability = values[probability > 0], probability[probability > 0]
    order = np.argsort(values)
    return values[order], np.cumsum(probability[order])


def _resample(
    x: ArrayLike, weights: ArrayLike | None, num_points: int, rng: np.random.Generator
) -> FloatArray:
    """Resample systematically: every point appears within one of its expected count."""
    values = np.asarray(x, dtype=np.float64)
    order = rng.permutation(len(values))
    cumulative = np.cumsum(_normalised(weights, len(values))[order])
    levels = (np.arange(num_points) + rng.random()) / num_points
    return values[order[np.searchsorted(cumulative, levels).clip(max=len(values) - 1)]]
