"""What other people found for a molecule: a free-energy profile, and energies of a simulation."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.state import State
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.metrics import FreeEnergyProfile

FloatArray = NDArray[np.float64]
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Comparison:
    """What other people found for the same molecule.

    Args:
        umbrella: Free-energy profile along phi.
        md_energies_kT: Reduced potentials of a simulation, ``(frames,)`` [kT].
        md_offset_kT: What was added to these energies [kT].
    """

    umbrella: FreeEnergyProfile | None = None
    md_energies_kT: FloatArray | None = None
    md_offset_kT: float = 0.0


def load_umbrella(path: Path) -> FreeEnergyProfile:
    """Read a free-energy profile along phi.

    Args:
        path: ``.npz`` with centres ``xs`` [rad] of equal bins of the circle, of which some may be
            left out, and the profile's mean ``f_i_mean`` and standard deviation ``f_i_std`` [kT].

    Returns: The profile on all bins, normalised; infinite in those left out.
    Raises: InputError: not such a file.
    """
    expected = "a .npz file with xs, f_i_mean and f_i_std"
    with as_input_error(partial(_refusal, path, expected)), np.load(path) as content:
        centres, mean, deviation = (content[name] for name in ("xs", "f_i_mean", "f_i_std"))
    shapes = [array.shape for array in (centres, mean, deviation)]
    if not (centres.ndim == 1 and len(centres) > 1 and len(set(shapes)) == 1):
        raise _refusal(path, "one value and deviation per centre", " and ".join(map(str, shapes)))
    if np.isnan(mean).any() or not (np.diff(centres) > 0).all():
        raise _refusal(path, "numbers at rising centres", "others")
    num_bins = round(2 * math.pi / np.diff(centres).min())
    place = (centres + math.pi) * num_bins / (2 * math.pi) - 0.5
    bins = place.round().astype(int)
    if np.abs(place - bins).max() > 0.01 or bins.min() < 0 or bins.max() >= num_bins:
        raise _refusal(path, f"centres of {num_bins} equal bins of (-pi, pi)", centres)
    log_normaliser = math.log(np.exp(-mean).sum() * 2 * math.pi / num_bins)
    value, half_width = np.full(num_bins, np.inf), np.zeros(num_bins)
    value[bins], half_width[bins] = mean + log_normaliser, _NORMAL_95 * deviation
    every = (np.arange(num_bins) + 0.5) * 2 * math.pi / num_bins - math.pi
    return FreeEnergyProfile(every, value, value - half_width, value + half_width)


def require_interval(state: State) -> tuple[float, float]:
    """Return the interval of phi that a state is, with which a profile along phi compares [rad].

    Raises: InputError: the state is none.
    """
    if state.interval is None:
        raise InputError(
            "umbrella profile along phi", expected="a state that is one interval of phi",
            got=state, remedy="leave --umbrella out, or target.state",
        )  # fmt: skip
    return state.interval


def profile_delta_f(profile: FreeEnergyProfile, state: tuple[float, float]) -> tuple[float, float]:
    """Return the free energy of the bins centred in a state against the others, and its error.

    Bins of one simulation err together: the error is the profile's own, averaged over the state.

    Args:
        profile: What `load_umbrella` read.
        state: Open interval of phi [rad].

    Returns: Value and standard error [kT].
    Raises: InputError: no such bin that is there, in the state or outside.
    """
    inside = (state[0] < profile.centres) & (profile.centres < state[1])
    probability = np.exp(-profile.value_kT)
    populated = inside & (probability > 0)
    if not (populated.any() and probability[~inside].any()):
        raise InputError(
            "umbrella profile along phi", expected="bins in the state and outside",
            got=f"none on one side of ({state[0]:g}, {state[1]:g})",
            remedy="leave --umbrella out, or name a profile that covers both",
        )  # fmt: skip
    error = (profile.upper_kT[populated] - profile.value_kT[populated]) / _NORMAL_95
    return (
        float(np.log(probability[~inside].sum() / probability[inside].sum())),
        float(np.average(error, weights=probability[populated])),
    )


def load_energies(path: Path) -> FloatArray:
    """Read reduced potentials of a simulation, ``(frames,)`` [kT].

    Raises: InputError: not an ``.npy`` file of finite numbers.
    """
    with as_input_error(partial(_refusal, path, "a .npy file of energies")):
        energies = np.load(path, allow_pickle=False).astype(np.float64).ravel()
    if len(energies) == 0 or not np.isfinite(energies).all():
        raise _refusal(path, "finite energies", f"{len(energies)}, some not finite or none")
    return energies


def _refusal(path: Path, expected: str, got: object) -> InputError:
    return InputError(f"file {path}", expected=expected, got=got, remedy="check the path")
