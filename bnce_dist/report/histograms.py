"""Weighted histograms as free energies, with bootstrap bands."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array


@dataclass(frozen=True, eq=False)
class FreeEnergyProfile:
    """``-ln p`` of an angle on a grid of bins.

    Args:
        centres: Bin centres, ``(bins,)`` [rad].
        values: ``-ln p`` with ``p`` normalised per radian, ``(bins,)`` [kT]; ``inf`` where empty.
        low: 2.5th percentile over bootstrap replicates, ``(bins,)`` [kT].
        high: 97.5th percentile, ``(bins,)`` [kT].
    """

    centres: Array
    values: Array
    low: Array
    high: Array


def free_energy_profile(
    angle: Array,
    log_weights: Array,
    *,
    unit: NDArray[np.integer] | None = None,
    num_bins: int = 60,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyProfile:
    """Return ``-ln p`` of an angle with a 95 % bootstrap band.

    Args:
        angle: ``(samples,)`` in (-pi, pi] [rad].
        log_weights: Unnormalised, ``(samples,)`` [nats].
        unit: What is independent of one another, an integer per sample (the replica of a
            simulation's frame); without it every sample is. A single unit has no error:
            its band is NaN.
        num_bins: Bins over the circle.
        num_bootstrap: Replicates.
        seed: Of the replicates.
    """
    weights = Weights(log_weights).normalised
    edges = np.linspace(-np.pi, np.pi, num_bins + 1)
    width = 2 * np.pi / num_bins
    bins = np.clip(np.digitize(angle, edges) - 1, 0, num_bins - 1)

    def profile(sample_weights: Array) -> Array:
        mass = np.bincount(bins, weights=sample_weights, minlength=num_bins)
        with np.errstate(divide="ignore"):
            return -np.log(mass / (mass.sum() * width))

    values = profile(weights)
    _, unit_of = np.unique(np.arange(len(angle)) if unit is None else unit, return_inverse=True)
    num_units = int(unit_of.max()) + 1
    low = high = np.full(num_bins, np.nan)
    if num_units > 1:
        rng = np.random.default_rng(seed_from(seed, "profile"))
        copies = rng.multinomial(num_units, np.full(num_units, 1 / num_units), num_bootstrap)
        replicates = np.stack([profile(weights * count[unit_of]) for count in copies])
        # Nearest, because interpolating between infinities of empty bins gives NaN.
        low, high = np.quantile(replicates, [0.025, 0.975], axis=0, method="nearest")
    return FreeEnergyProfile((edges[:-1] + edges[1:]) / 2, values, low, high)


def free_energy_surface(phi: Array, psi: Array, log_weights: Array, num_bins: int) -> Array:
    """Return ``-ln p(phi, psi)`` relative to its minimum.

    Args:
        phi: ``(samples,)`` [rad].
        psi: ``(samples,)`` [rad].
        log_weights: Unnormalised, ``(samples,)`` [nats].
        num_bins: Bins per angle.

    Returns: ``(num_bins, num_bins)`` [kT], phi along the first axis; ``inf`` where empty.
    """
    edges = np.linspace(-np.pi, np.pi, num_bins + 1)
    weights = Weights(log_weights).normalised
    mass, _, _ = np.histogram2d(phi, psi, bins=(edges, edges), weights=weights)
    with np.errstate(divide="ignore"):
        return -np.log(mass / mass.max())
