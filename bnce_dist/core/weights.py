"""Importance weights in float64, and the diagnostics that say whether to believe them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from bnce_dist.core.errors import InputError
from bnce_dist.core.tails import fit_tail

FloatArray = NDArray[np.float64]


def log_weights(
    reduced_potential: ArrayLike | torch.Tensor, log_density: ArrayLike | torch.Tensor
) -> FloatArray:
    """Return ``-u - log_density``, the unnormalised log weights of samples towards the target.

    Args:
        reduced_potential: ``u`` of every sample, ``(samples,)`` [kT]; ``inf`` means impossible
            under the target and gives ``-inf``.
        log_density: Log density the samples were drawn from, ``(samples,)`` [nats].

    Returns: ``(samples,)`` [nats].
    Raises: InputError: lengths differ, a NaN, ``u = -inf`` or an infinite log density.

    Examples:
        >>> log_weights([1.0, 2.0, np.inf], [-1.0, -1.5, -2.0])
        array([ 0. , -0.5, -inf])
    """
    u, log_q = _float64(reduced_potential), _float64(log_density)
    if u.ndim != 1 or u.shape != log_q.shape:
        raise InputError(
            "weights",
            expected="one reduced potential and one log density per sample",
            got=f"shapes {u.shape} and {log_q.shape}",
            remedy="evaluate both on the same samples",
        )
    num_bad = int((np.isnan(u) | np.isneginf(u)).sum() + (~np.isfinite(log_q)).sum())
    if num_bad:
        raise InputError(
            "weights",
            expected="reduced potentials above -inf and finite log densities",
            got=f"{num_bad} others among {len(u)} samples",
            remedy="find the samples whose coordinates or model outputs are not finite",
        )
    return -u - log_q


@dataclass(frozen=True)
class ClipReport:
    """What clipping did.

    Args:
        fraction: Requested fraction of samples.
        num_clipped: Weights that were lowered.
        log_threshold: Log weight they were lowered to [nats].
        weight_removed: Removed share of the total weight, the price paid in bias.
    """

    fraction: float
    num_clipped: int
    log_threshold: float
    weight_removed: float


@dataclass(frozen=True, eq=False)
class Weights:
    """Self-normalised importance weights.

    Args:
        log_weights: Unnormalised, ``(samples,)`` [nats]; ``-inf`` for a rejected sample.

    Raises: InputError: a NaN or ``inf``, or no sample with a positive weight.

    Examples:
        >>> weights = Weights(np.log([2.0, 1.0, 1.0]))
        >>> weights.normalised
        array([0.5 , 0.25, 0.25])
        >>> round(weights.ess, 3)  # of three samples
        2.667
    """

    log_weights: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_weights", _float64(self.log_weights))
        bad = np.isnan(self.log_weights) | np.isposinf(self.log_weights)
        if self.log_weights.ndim != 1 or bad.any() or self.num_rejected == self.num_samples:
            raise InputError(
                "weights",
                expected="one list of log weights without NaN or inf, at least one above -inf",
                got=f"shape {self.log_weights.shape}, {bad.sum()} NaN or inf, "
                f"{self.num_rejected} -inf",
                remedy="check reduced potentials and log densities of the samples",
            )

    @property
    def num_samples(self) -> int:
        """Number of samples, rejected ones included."""
        return len(self.log_weights)

    @property
    def num_rejected(self) -> int:
        """Number of samples that are impossible under the target."""
        return int(np.isneginf(self.log_weights).sum())

    @cached_property
    def normalised(self) -> FloatArray:
        """Weights that sum to 1, ``(samples,)``."""
        return np.exp(self.log_weights - logsumexp(self.log_weights))

    @property
    def ess(self) -> float:
        """Effective sample size, ``(sum w)^2 / sum w^2`` (Kish)."""
        return float(1 / np.square(self.normalised).sum())

    @property
    def ess_fraction(self) -> float:
        """Effective sample size over the number of samples; it depends on that number."""
        return self.ess / self.num_samples

    @cached_property
    def pareto_k(self) -> float:
        """Shape of the weights' tail; from 1 on they have no mean, above 0.7 means converge slowly.

        The largest ``min(n / 5, 3 sqrt(n))`` weights are fitted by a generalised Pareto
        distribution. Weights whose largest values are all equal have no tail and give 0.

        Raises: InputError: fewer than five weights in the tail.
        Source: Vehtari et al. (2024), sections 2 and 3.1.
        """
        if not (tail := fit_tail(self.log_weights)):
            raise InputError(
                "pareto_k",
                expected="at least 5 weights in the tail",
                got=f"{self.num_samples} samples, {self.num_rejected} without weight",
                remedy="draw more samples",
            )
        return tail.shape

    def clipped(self, fraction: float = 0.002) -> tuple["Weights", ClipReport]:
        """Return weights whose top ``fraction`` is lowered to the largest of the others.

        Args:
            fraction: Share of the samples, in [0, 1); rounded up to whole samples.

        Raises: InputError: the fraction is out of range.
        """
        num_top = math.ceil(fraction * self.num_samples) if 0 <= fraction < 1 else -1
        if not 0 <= num_top < self.num_samples - self.num_rejected:
            raise InputError(
                "clip fraction",
                expected="in [0, 1) and fewer samples than have a positive weight",
                got=fraction,
                remedy="0.002 clips the top 0.2 %",
            )
        threshold = float(np.sort(self.log_weights)[-num_top - 1])
        lowered = np.minimum(self.log_weights, threshold)
        removed = 1 - math.exp(logsumexp(lowered) - logsumexp(self.log_weights))
        num_clipped = int((self.log_weights > threshold).sum())
        return Weights(lowered), ClipReport(fraction, num_clipped, threshold, removed)

    def tempered(self, min_ess: float) -> "Weights":
        """Return the weights to the largest power up to 1 that leaves so large a sample size.

        Args:
            min_ess: Effective sample size, less than the number of positive weights.

        Raises: InputError: that many are not there.
        """
        if min_ess >= self.num_samples - self.num_rejected:
            raise InputError(
                "effective sample size of tempered weights",
                expected=f"less than the {self.num_samples - self.num_rejected} positive ones",
                got=min_ess,
                remedy="ask for fewer",
            )
        if self.ess >= min_ess:
            return self
        low, high = 0.0, 1.0  # The sample size falls with the power.
        while high - low > 1e-3 or low == 0:
            power = 0.5 * (low + high)
            enough = Weights(power * self.log_weights).ess >= min_ess
            low, high = (power, high) if enough else (low, power)
        return Weights(low * self.log_weights)


def _float64(values: ArrayLike | torch.Tensor) -> FloatArray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
