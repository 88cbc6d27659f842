"""What frames of the simulation say of a run: a second estimate, and what the emulator lacks."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.bennett import Frames, bennett_delta_f
from bnce_dist.core.errors import InputError
from bnce_dist.generator.samples import Samples

# A few frames have no noise that leads to them; more would bias Bennett's ratio.
_MIN_FRAMES_FOUND = 0.97


def bennett_metrics(samples: Samples, frames: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return a second estimate, from samples of the emulator and frames of a simulation.

    Args:
        samples: As they were drawn.
        frames: Data set of frames drawn by their weights, with exact densities where the emulator's
            map could be inverted.

    Returns: ``frames_found``, the smaller share on the two sides of the state for which it could
        be; and ``delta_f_bennett_kT`` with its standard error, unless too few were found, or there
        are too few to say anything.
    """
    inside, found = frames["in_state"], frames["found"]
    sides = (inside, ~inside)
    metrics = {"frames_found": float(min(found[side].mean() for side in sides))}
    independent = [_effective_chains(frames["chain"][side & found]) for side in sides]
    if metrics["frames_found"] < _MIN_FRAMES_FOUND:
        return metrics
    there = Frames(
        log_weights=(-frames["reduced_potential"] - frames["log_density"])[found],
        weights=np.ones(int(found.sum())),
        in_state=inside[found],
        num_independent=(independent[0], independent[1]),
    )
    at_random = np.arange(len(samples.in_state)) < samples.num_random
    weights = np.where(at_random, samples.log_weights_exact, np.nan)
    try:
        estimate = bennett_delta_f(weights, samples.in_state, there)
    except InputError:
        return metrics
    return metrics | {
        "delta_f_bennett_kT": estimate.value_kT,
        "delta_f_bennett_stderr_kT": estimate.stderr_kT,
    }


def unseen_metrics(
    samples: Samples, drawn: Samples, frames: Mapping[str, np.ndarray]
) -> dict[str, float]:
    r"""Return how much of what a simulation visits the emulator hardly ever draws.

    Weights of its own samples cannot show a mode that it lacks; exact densities of frames can. On
    each side of the state a frame is unseen where the emulator draws so much less than it should,

    .. math:: \frac{e^{-u}}{\rho} > \frac{n}{10} \, E_\rho\left[\frac{e^{-u}}{\rho}\right],

    that of ``n`` samples not one would lie in such a place if it held a tenth of the side; and
    where no noise leads to it.

    Args:
        samples: The run's, annealed or not, whose weights give the normalisation.
        drawn: The same as they were drawn.
        frames: As of `bennett_metrics`.

    Returns: ``unseen_in_state`` and ``unseen_outside_state``, shares of the frames there.
    """
    log_weights = samples.log_weights
    total = np.exp(log_weights - log_weights.max())
    shares = {}
    for name, ended, started, there in (
        ("in_state", samples.in_state, drawn.in_state, frames["in_state"]),
        ("outside_state", ~samples.in_state, ~drawn.in_state, ~frames["in_state"]),
    ):
        log_mean = math.log(total[ended].sum() / max(started.sum(), 1)) + log_weights.max()
        excess = (-frames["reduced_potential"] - frames["log_density"])[there] - log_mean
        seen = frames["found"][there] & (excess < math.log(max(started.sum() / 10, 1)))
        shares[f"unseen_{name}"] = float(1 - seen.mean())
    return shares


def _effective_chains(chains: NDArray[np.integer]) -> float:
    """Return how many chains the frames are worth: those of one chain may all be alike."""
    counts = np.unique(chains, return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / np.square(counts).sum()) if len(counts) else 0.0
