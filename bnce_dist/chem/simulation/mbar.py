"""Multistate reweighting of umbrella samples, solved by pymbar."""

import logging
from copy import deepcopy
from types import ModuleType

import numpy as np
from scipy.special import logsumexp

from bnce_dist.chem.simulation.replica_exchange import Windows

_SOLVER = {"method": "adaptive", "tol": 1e-8, "options": {"min_sc_iter": 0}}
"""Newton's method with a safeguard: ten times fewer passes over the samples than the default. The
tolerance is relative, and levelled windows have free energies near zero: pymbar's own, 1e-12, is
below their rounding errors there and was missed for thousands of passes."""
_CHUNK = 20_000
"""Samples weighted at once; keeps the bias matrix at some tens of megabytes."""


def window_free_energies(
    phi: np.ndarray,
    psi: np.ndarray,
    window: np.ndarray,
    windows: Windows,
    max_samples: int = 20_000,
    initial: np.ndarray | None = None,
) -> np.ndarray:
    r"""Return the reduced free energy of every window, the first being zero.

    A bias common to all windows does not enter: they are relative to the ensemble it makes.

    .. math:: f_k = -\ln \sum_n \frac{e^{-w_k(x_n)}}{\sum_l N_l e^{f_l - w_l(x_n)}}

    Args:
        phi: Samples in order of time, ``(samples,)`` [rad].
        psi: ``(samples,)`` [rad].
        window: The window each sample was drawn in, ``(samples,)``.
        windows: The grid of windows.
        max_samples: An even share of the samples is used when there are more.
        initial: A guess, ``(windows,)`` [kT]; zero under a levelled landscape is a good one.

    Returns: ``(windows,)`` [kT].
    Source: Shirts and Chodera (2008), J. Chem. Phys. 129, 124105, eq. 11.
    """
    # MBAR wants the samples sorted by window; the order within a window stays that of time.
    order = np.argsort(window, kind="stable")
    order = order[:: max(1, len(order) // max_samples)]
    counts = np.bincount(window[order], minlength=len(windows))
    bias = windows.reduced_bias(phi[order].astype(np.float64), psi[order].astype(np.float64))
    # pymbar fills in the options it is given, so it gets its own copy.
    mbar = _pymbar().MBAR(bias, counts, initial_f_k=initial, solver_protocol=(deepcopy(_SOLVER),))
    return mbar.f_k


def unbiased_log_weights(
    phi: np.ndarray,
    psi: np.ndarray,
    common_bias: np.ndarray,
    free_energies: np.ndarray,
    windows: Windows,
) -> np.ndarray:
    r"""Return normalised log weights of samples that visited all windows equally.

    .. math:: \ln W_n = B(x_n) - \ln \sum_k e^{f_k - w_k(x_n)} + \mathrm{const}

    Args:
        phi: ``(samples,)`` [rad].
        psi: ``(samples,)`` [rad].
        common_bias: ``B``, the bias that all windows share, ``(samples,)`` [kT].
        free_energies: ``f``, ``(windows,)`` [kT].
        windows: The grid of windows.

    Returns: ``(samples,)``, float64; the weights sum to one.
    """
    log_weights = common_bias.astype(np.float64)
    for first in range(0, len(phi), _CHUNK):
        part = slice(first, first + _CHUNK)
        bias = windows.reduced_bias(phi[part].astype(np.float64), psi[part].astype(np.float64))
        log_weights[part] -= logsumexp(free_energies[:, None] - bias, axis=0)
    return log_weights - logsumexp(log_weights)


def statistical_inefficiency(series: np.ndarray) -> float:
    """Return how many values of a correlated series in time are worth one independent value.

    Args:
        series: ``(times,)``.
    """
    return float(_pymbar().timeseries.statistical_inefficiency(series))


def _pymbar() -> ModuleType:
    """Import pymbar where it is used: most commands do without, and it takes part of a second."""
    # It greets every import with advice about an optional accelerator.
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    import pymbar

    return pymbar
