"""Free energies from samples of both ends: an emulator's, and a simulation's."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from bnce_dist.core.errors import InputError

FloatArray = NDArray[np.float64]

_MIN_PER_END = 10


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Args:
        value_kT: The estimate [kT].
        stderr_kT: Its standard error [kT].
    """

    value_kT: float
    stderr_kT: float


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of a simulation of the target.

    Args:
        log_weights: ``-u - log q`` by the emulator's density, ``(frames,)`` [nats].
        weights: Towards the target, non-negative, ``(frames,)``.
        in_state: ``(frames,)`` bool.
        num_independent: Independent frames that those of each side are worth, in the state and
            outside; never more than there are.
    """

    log_weights: FloatArray
    weights: FloatArray
    in_state: NDArray[np.bool_]
    num_independent: tuple[float, float]


def bennett_log_ratio(
    log_weights: ArrayLike,
    frame_log_weights: ArrayLike,
    frame_weights: ArrayLike,
    *,
    num_independent: float,
) -> Estimate:
    r"""Return ``ln Z_p / Z_q`` from samples of ``q`` and frames of ``p``.

    .. math:: \sum_{x \sim q} \sigma(\ln w - c - M) = \sum_{x \sim p} \sigma(M + c - \ln w),
              \qquad M = \ln \frac{n_q}{n_p}

    solved for ``c``; ``n_p`` counts independent frames, so correlated ones neither pull the
    estimate nor narrow its error.

    Args:
        log_weights: ``ln w = ln p - ln q``, unnormalised, of samples of ``q``, ``(n,)`` [nats];
            ``-inf`` for a sample impossible under ``p``.
        frame_log_weights: Of frames of ``p``, ``(frames,)`` [nats].
        frame_weights: Of the frames towards ``p``, non-negative, ``(frames,)``.
        num_independent: Independent frames that they are worth.

    Raises: InputError: fewer than ten samples or independent frames, a NaN, or no weight.
    Source: Bennett (1976), J. Comput. Phys. 22, 245, eq. 12; Shirts et al. (2003).
    """
    samples = np.asarray(log_weights, dtype=np.float64)
    frames = np.asarray(frame_log_weights, dtype=np.float64)
    shares = np.asarray(frame_weights, dtype=np.float64)
    _require(samples, frames, shares, num_independent)
    shares = shares / shares.sum()
    num_samples = len(samples)
    offset = math.log(num_samples / num_independent)

    def ends(c: float) -> tuple[FloatArray, FloatArray]:
        return expit(samples - c - offset), expit(offset + c - frames)

    def imbalance(c: float) -> float:
        of_samples, of_frames = ends(c)
        return float(of_samples.sum() - num_independent * (shares @ of_frames))

    finite = np.concatenate([samples[np.isfinite(samples)], frames])
    margin = 50 + abs(offset) + math.log(num_samples + num_independent)
    c = float(brentq(imbalance, finite.min() - margin, finite.max() + margin, xtol=1e-12))
    of_samples, of_frames = ends(c)
    slope = (of_samples * (1 - of_samples)).sum() + num_independent * (
        shares @ (of_frames * (1 - of_frames))
    )
    if not slope >= 1:
        raise InputError(
            "Bennett acceptance ratio",
            expected="samples and frames that overlap",
            got=f"an overlap worth {slope:.1g} samples",
            remedy="train the emulator longer, or leave this estimate out",
        )
    mean = shares @ of_frames
    variance = num_samples * of_samples.var() + num_independent * (
        shares @ np.square(of_frames - mean)
    )
    return Estimate(c, math.sqrt(variance) / float(slope))


def bennett_delta_f(log_weights: ArrayLike, in_state: ArrayLike, frames: Frames) -> Estimate:
    r"""Return ``f(state) - f(rest)``, by Bennett's ratio on each side.

    .. math:: \Delta f = \ln \frac{n_{out}}{n_{in}} + c_{out} - c_{in}

    with ``n`` the emulator's samples on a side and ``c`` the log ratio of normalisations there. The
    frames say nothing of how often a simulation visits the state: only shapes within sides count.

    Args:
        log_weights: Of independent samples of the emulator by its exact density, ``(n,)`` [nats];
            NaN for those that only say how many are on each side.
        in_state: Whether each is in the state, ``(n,)`` bool.
        frames: Of the target, not among the emulator's training data.

    Raises: InputError: as for `bennett_log_ratio`, on either side.
    """
    weights, inside = np.asarray(log_weights, dtype=np.float64), np.asarray(in_state)
    known = ~np.isnan(weights)
    sides = [
        bennett_log_ratio(
            weights[mine & known],
            frames.log_weights[theirs],
            frames.weights[theirs],
            num_independent=count,
        )
        for mine, theirs, count in (
            (inside, frames.in_state, frames.num_independent[0]),
            (~inside, ~frames.in_state, frames.num_independent[1]),
        )
    ]
    num_in, num_out = int(inside.sum()), int((~inside).sum())
    value = math.log(num_out / num_in) + sides[1].value_kT - sides[0].value_kT
    counting = 1 / num_in + 1 / num_out
    variance = counting + sides[0].stderr_kT ** 2 + sides[1].stderr_kT ** 2
    return Estimate(value, math.sqrt(variance))


def _require(
    samples: FloatArray, frames: FloatArray, shares: FloatArray, num_independent: float
) -> None:
    bad = np.isnan(samples).sum() + np.isposinf(samples).sum() + (~np.isfinite(frames)).sum()
    weightless = not np.isfinite(samples).any() or not shares.sum() > 0 or (shares < 0).any()
    enough = len(samples) >= _MIN_PER_END and _MIN_PER_END <= num_independent <= len(frames)
    if enough and not bad and not weightless and frames.shape == shares.shape:
        return
    raise InputError(
        "Bennett acceptance ratio",
        expected=f"{_MIN_PER_END} samples and {_MIN_PER_END} independent frames on each side, "
        "finite and of some weight",
        got=f"{len(samples)} samples, {len(frames)} frames worth {num_independent:.0f}, "
        f"{bad} not finite",
        remedy="use longer simulations or leave this estimate out",
    )
