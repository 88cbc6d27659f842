"""What a verdict on importance weights is made from, as numbers."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from bnce_dist.core.errors import InputError


def forward_ess_fraction(log_weights: ArrayLike, frame_weights: ArrayLike) -> float:
    r"""Return how well an emulator covers samples of the target itself.

    .. math:: \frac{1}{E_p[w]\, E_p[1/w]}, \qquad w = p / q

    With every ``w`` equal it is 1. It falls to 0 where the emulator lacks a mode of the target,
    which weights of the emulator's own samples cannot show.

    Args:
        log_weights: ``-u - log q`` of frames of a simulation, ``(frames,)`` [nats]; any constant
            may be missing.
        frame_weights: Of the frames towards the target, non-negative, ``(frames,)``.

    Returns: In ``[0, 1]``; NaN where no frame has weight.
    Raises: InputError: lengths differ or a value is not finite.
    Source: Agrawal et al. (2020), "Advances in black-box VI", forward ESS.
    """
    values = np.asarray(log_weights, dtype=np.float64)
    weights = np.asarray(frame_weights, dtype=np.float64)
    if values.shape != weights.shape or not (np.isfinite(values).all() and (weights >= 0).all()):
        raise InputError(
            "forward check",
            expected="one finite log weight and one weight of zero or more per frame",
            got=f"shapes {values.shape} and {weights.shape}, "
            f"{(~np.isfinite(values)).sum()} not finite",
            remedy="leave out the frames that the coordinates cannot represent",
        )
    chosen = weights > 0
    if not chosen.any():
        return math.nan
    log_frames = np.log(weights[chosen] / weights.sum())
    forward = logsumexp(log_frames + values[chosen])
    backward = logsumexp(log_frames - values[chosen])
    return float(np.exp(-forward - backward))


def deviation(value: float, stderr: float, reference: float, reference_stderr: float) -> float:
    """Return how many combined standard errors lie between an estimate and its reference.

    Args:
        value: The estimate.
        stderr: Its standard error.
        reference: Of another method.
        reference_stderr: Its standard error.

    Returns: Not negative; infinite if two exact values differ.
    """
    difference, error = abs(value - reference), math.hypot(stderr, reference_stderr)
    if error == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / error
