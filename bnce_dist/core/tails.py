"""The tail of importance weights: its shape, and the weight it may hold that no sample shows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

FloatArray = NDArray[np.float64]

MAX_NO_MEAN_PROBABILITY = 1 / 4
"""The tail is three times as likely to have a mean as to have none. What tails with a mean may hide
is in the interval: to ask for more certainty would pick, among heavy tails, those that look light
by chance, whose results are just the wrong ones."""
_MIN_EXCEEDANCES = 5
# Below 1 a tail has a mean.
_SHAPES = (np.arange(80) + 0.5) / 40
_HAVE_MEAN = _SHAPES < 1
# Shape over scale, in units of the inverse median.
_SHAPES_OVER_SCALES = np.geomspace(0.01, 20, 200)
_MAX_MISSED = 0.015
_MAX_MISSED_PER_EXCEEDANCE = 1e-4


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution fitted to the largest weights.

    Args:
        shape: Its ``k``; moments above ``1 / k`` are infinite.
        hidden_kT: How far the log of the weights' sum may be above the sample's: a quantile of the
            log of the sum with the tail's mean in place of its sampled one, over the posterior of
            scale and shape, of shapes that have a mean; not negative [kT]. The quantile is 98.5 %
            of 150 exceedances or more, and of fewer one that is missed as much less often: the
            fewer there are, the fewer of the tails that hide much look as if they had a mean, and
            it is of these that most have to be held.
        no_mean_probability: Of a shape of 1 or more, where all from 0 to 2 are alike beforehand.
    """

    shape: float
    hidden_kT: float
    no_mean_probability: float


def fit_tail(log_weights: FloatArray, multiplicity: FloatArray | None = None) -> Tail | None:
    """Fit the largest ``min(n / 5, 3 sqrt(n))`` of ``n`` weights.

    Weights whose largest values are all equal have no tail and give shape 0.

    Args:
        log_weights: ``(samples,)`` [nats]; ``-inf`` for none.
        multiplicity: How many weights of the whole each of them stands for, ``(samples,)``; by
            default one, and ``n`` is their sum.

    Returns: The tail, or None where fewer than five weights are in it.
    Source: Vehtari et al. (2024), sections 2 and 3.1 (length and shape); Kish (1965), Survey
        Sampling (effective numbers).
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
        return Tail(0.0, 0.0, 0.0)
    if positive.sum() < _MIN_EXCEEDANCES:
        return None
    x, mass = exceedances[positive][::-1], counts[:size][positive][::-1]
    num_effective = _effective_for_mean(x, mass)
    posterior, scales = _posterior(x, mass, num_effective)
    mean_excess = scales[_HAVE_MEAN] / (1 - _SHAPES[_HAVE_MEAN, None])
    missing = mass.sum() * mean_excess - mass @ x
    missed = min(_MAX_MISSED, _MAX_MISSED_PER_EXCEEDANCE * num_effective)
    upper = _quantile(missing.ravel(), posterior[_HAVE_MEAN].ravel(), 1 - missed)
    return Tail(
        shape=_shape(x, mass),
        hidden_kT=math.log1p(max(upper, 0.0) / float(counts @ weights)),
        no_mean_probability=float(posterior[~_HAVE_MEAN].sum()),
    )


def generalised_pareto_shape(exceedances: FloatArray) -> float:
    r"""Return the shape ``k`` of a generalised Pareto distribution located at 0.

    The likelihood of :math:`\theta = -k/\sigma` is profiled on a grid that adapts to the data and
    averaged, then ``k`` is shrunk towards 0.5 by a prior worth ten observations.

    Args:
        exceedances: Positive, ``(samples,)``.

    Source: Zhang & Stephens (2009), section 3; Vehtari et al. (2024), appendix G.
    """
    return _shape(np.sort(exceedances), np.ones(len(exceedances)))


def _posterior(
    x: FloatArray, counts: FloatArray, num_effective: float
) -> tuple[FloatArray, FloatArray]:
    """Return the posterior on a grid of shapes and scales, and the scales, ``(shapes, ratios)``.

    The shape and the logarithm of the scale are uniform beforehand. What is known is worth an
    effective number of exceedances.
    """
    ratios = _SHAPES_OVER_SCALES / np.median(x)
    log_terms = np.log1p(ratios[:, None] * x) @ counts / counts.sum()
    scales = _SHAPES[:, None] / ratios
    log_likelihood = -np.log(scales) - (1 + 1 / _SHAPES[:, None]) * log_terms
    log_posterior = num_effective * log_likelihood
    return np.exp(log_posterior - logsumexp(log_posterior)), scales


def _shape(x: FloatArray, counts: FloatArray) -> float:
    num_samples, num_effective = len(x), float(counts.sum() ** 2 / np.square(counts).sum())
    grid_size = 30 + int(math.sqrt(num_samples))
    rank = np.searchsorted(np.cumsum(counts) / counts.mean(), num_samples / 4 - 0.5, side="right")
    steps = 1 - np.sqrt(grid_size / (np.arange(1, grid_size + 1) - 0.5))
    theta = 1 / x[-1] + steps / (3 * x[rank])
    shapes = np.log1p(-theta[:, None] * x) @ counts / counts.sum()
    log_likelihood = num_effective * (np.log(-theta / shapes) - shapes - 1)
    posterior = np.exp(log_likelihood - logsumexp(log_likelihood))
    k = np.log1p(-(posterior * theta).sum() * x) @ counts / counts.sum()
    return float((num_effective * k + 10 * 0.5) / (num_effective + 10))


def _effective_for_mean(x: FloatArray, counts: FloatArray) -> float:
    """Return how many exceedances are worth the same for their mean, where each counts once.

    Most of the largest ones do, which decide the mean; of Kish's number, which is blind to size,
    there are far fewer.
    """
    squares = np.square(x)
    return float(counts.sum() * (counts @ squares) / (np.square(counts) @ squares))


def _quantile(values: FloatArray, probability: FloatArray, rank: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(probability[order])
    index = int(np.searchsorted(cumulative, rank * cumulative[-1]))
    return float(values[order][min(index, len(order) - 1)])
