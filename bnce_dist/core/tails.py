"""The tail of importance weights: its shape, and the weight it may hold that no sample shows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, logsumexp

FloatArray = NDArray[np.float64]

_MIN_EXCEEDANCES = 5
# A mean over a tail of shape 1 is infinite; of a posterior that reaches it, 20 scales are counted.
_MAX_SHAPE = 0.95
_HIDDEN_QUANTILE = 0.95
# Of the shape, for each scale of the grid.
_NUM_QUANTILES = 9


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution fitted to the largest weights.

    Args:
        shape: Its ``k``; moments above ``1 / k`` are infinite.
        hidden_kT: How much larger the log of the weights' sum may be than the sample shows: the
            95 % quantile, over the posterior of scale and shape, of the log of the sum with the
            tail's fitted in place of its sampled mean; not negative [kT].
    """

    shape: float
    hidden_kT: float


def fit_tail(log_weights: FloatArray, multiplicity: FloatArray | None = None) -> Tail | None:
    """Fit the largest ``min(n / 5, 3 sqrt(n))`` of ``n`` weights.

    Weights whose largest values are all equal have no tail and give shape 0.

    Args:
        log_weights: ``(samples,)`` [nats]; ``-inf`` for none.
        multiplicity: How many weights of the whole each of them stands for, ``(samples,)``; by
            default one, and ``n`` is their sum.

    Returns: The tail, or None where fewer than five weights are in it.
    Source: Vehtari et al. (2024), sections 2 and 3.1.
    """
    counts = np.ones(len(log_weights)) if multiplicity is None else multiplicity
    order = np.argsort(-log_weights, kind="stable")
    weights = np.exp(log_weights[order] - log_weights[order[0]])
    counts = counts[order]
    num_all = float(counts.sum())
    wanted = math.ceil(min(0.2 * num_all, 3 * math.sqrt(num_all)))
    # A multiple at the border makes the tail as long as asked for or longer.
    size = max(int(np.searchsorted(np.cumsum(counts), wanted * (1 - 1e-12))) + 1, 1)
    cutoff = float(weights[size]) if size < len(weights) else 0.0
    exceedances = weights[:size] - cutoff
    positive = exceedances > 0
    if size >= _MIN_EXCEEDANCES and not positive.any():
        return Tail(0.0, 0.0)
    if positive.sum() < _MIN_EXCEEDANCES:
        return None
    x, mass = exceedances[positive][::-1], counts[:size][positive][::-1]
    posterior, theta, shapes = _posterior(x, mass)
    # Of the tails that the fit allows, each with the same share of its grid point's probability.
    mean_excess = _mean_excess(theta[:, None], shapes[:, None] * _relative_shapes(mass)).ravel()
    probability = np.repeat(posterior / _NUM_QUANTILES, _NUM_QUANTILES)
    total = float(counts @ weights)
    gain = np.log1p(np.maximum(mass.sum() * mean_excess - mass @ x, 0.0) / total)
    order = np.argsort(gain)
    upper = int(np.searchsorted(np.cumsum(probability[order]), _HIDDEN_QUANTILE))
    return Tail(_shape(x, mass, posterior, theta), float(gain[order[min(upper, len(gain) - 1)]]))


def generalised_pareto_shape(exceedances: FloatArray) -> float:
    r"""Return the shape ``k`` of a generalised Pareto distribution located at 0.

    The likelihood of :math:`\theta = -k/\sigma` is profiled on a grid that adapts to the data and
    averaged, then ``k`` is shrunk towards 0.5 by a prior worth ten observations.

    Args:
        exceedances: Positive, ``(samples,)``.

    Source: Zhang & Stephens (2009), section 3; Vehtari et al. (2024), appendix G.
    """
    x, counts = np.sort(exceedances), np.ones(len(exceedances))
    posterior, theta, _ = _posterior(x, counts)
    return _shape(x, counts, posterior, theta)


def _posterior(x: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the posterior on a grid, the grid of theta, and the best shape for each theta."""
    num_samples = len(x)
    grid_size = 30 + int(math.sqrt(num_samples))
    rank = np.searchsorted(np.cumsum(counts) / counts.mean(), num_samples / 4 - 0.5, side="right")
    steps = 1 - np.sqrt(grid_size / (np.arange(1, grid_size + 1) - 0.5))
    theta = 1 / x[-1] + steps / (3 * x[rank])
    shapes = np.log1p(-theta[:, None] * x) @ counts / counts.sum()
    log_likelihood = _effective(counts) * (np.log(-theta / shapes) - shapes - 1)
    return np.exp(log_likelihood - logsumexp(log_likelihood)), theta, shapes


def _shape(x: FloatArray, counts: FloatArray, posterior: FloatArray, theta: FloatArray) -> float:
    num_samples = _effective(counts)
    k = np.log1p(-(posterior * theta).sum() * x) @ counts / counts.sum()
    return float((num_samples * k + 10 * 0.5) / (num_samples + 10))


def _relative_shapes(counts: FloatArray) -> FloatArray:
    r"""Return quantiles of the shape over its likeliest value, which is the grid's.

    Given :math:`\theta`, the likelihood of ``n`` exceedances is :math:`k^{-n} e^{-n \hat k / k}`:
    :math:`n \hat k / k` has a gamma distribution, by a prior of :math:`1 / k`.
    """
    ranks = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    num_samples = _effective(counts)
    return np.asarray(num_samples / gammaincinv(num_samples, ranks), np.float64)


def _mean_excess(theta: FloatArray, shapes: FloatArray) -> FloatArray:
    shapes = np.minimum(shapes, _MAX_SHAPE)
    return -shapes / theta / (1 - shapes)


def _effective(counts: FloatArray) -> float:
    return float(counts.sum() ** 2 / np.square(counts).sum())
