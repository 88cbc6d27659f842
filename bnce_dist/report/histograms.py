"""Free energies from the weighted frames of a simulation."""

import math

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.metrics import FreeEnergyProfile
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array


def replica_profile(
    angle: Array,
    log_weights: Array,
    replica: NDArray[np.integer],
    *,
    num_bins: int = 60,
    limits: tuple[float, float] = (-math.pi, math.pi),
    num_bootstrap: int = 200,
    seed: int = 0,
) -> FreeEnergyProfile:
    """Return ``-ln p`` of an angle with a 95 % band from a bootstrap over whole replicas.

    Frames of one replica are correlated, so resampling frames would make the band too narrow.

    Args:
        angle: In [-pi, pi] [rad], ``(frames,)``.
        log_weights: Unnormalised, ``(frames,)`` [nats].
        replica: Which independent replica a frame belongs to, ``(frames,)``. A single one shows
            no error: the band is then NaN.
        num_bins: Bins over the circle.
        limits: The circle, or the range of another quantity than an angle.
        num_bootstrap: Replicates.
        seed: Of the replicates.
    """
    edges = np.linspace(*limits, num_bins + 1)
    names, row = np.unique(replica, return_inverse=True)
    weights = Weights(log_weights).normalised
    mass, _, _ = np.histogram2d(
        row, angle, bins=(np.arange(len(names) + 1), edges), weights=weights
    )
    rng = np.random.default_rng(seed_from(seed, "profile"))
    copies = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), num_bootstrap)
    width = float(edges[1] - edges[0])
    replicates = _minus_log_density(copies @ mass, width)
    # Nearest, because interpolating between the infinities of empty bins gives NaN.
    lower, upper = np.quantile(replicates, [0.025, 0.975], axis=0, method="nearest")
    if len(names) == 1:
        lower = upper = np.full(num_bins, math.nan)
    value = _minus_log_density(mass.sum(0), width)
    return FreeEnergyProfile(0.5 * (edges[1:] + edges[:-1]), value, lower, upper)


def free_energy_surface(phi: Array, psi: Array, log_weights: Array, num_bins: int) -> Array:
    """Return ``-ln p(phi, psi)`` relative to its minimum.

    Args:
        phi: ``(samples,)`` [rad].
        psi: ``(samples,)`` [rad].
        log_weights: Unnormalised, ``(samples,)`` [nats].
        num_bins: Bins per angle.

    Returns: ``(num_bins, num_bins)`` [kT], phi along the first axis; ``inf`` where empty.
    """
    edges = np.linspace(-math.pi, math.pi, num_bins + 1)
    weights = Weights(log_weights).normalised
    mass, _, _ = np.histogram2d(phi, psi, bins=(edges, edges), weights=weights)
    with np.errstate(divide="ignore"):
        return -np.log(mass / mass.max())


def _minus_log_density(mass: Array, width: float) -> Array:
    with np.errstate(divide="ignore"):
        return -np.log(mass / (mass.sum(-1, keepdims=True) * width))
