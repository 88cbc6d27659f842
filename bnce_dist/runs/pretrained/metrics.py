"""The numbers of a run on a pretrained field."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.state import State
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.free_energy import FreeEnergyDifference, delta_f
from bnce_dist.core.metrics import FreeEnergyProfile, wasserstein_2
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights, log_weights
from bnce_dist.generator.metrics import evidence
from bnce_dist.generator.target import Target
from bnce_dist.generator.verdict import Verdict, judge
from bnce_dist.pipeline.results import with_error, with_interval
from bnce_dist.runs.pretrained.config import PretrainedConfig

FloatArray = NDArray[np.float64]


def sample_weights(evaluated: Mapping[str, np.ndarray]) -> Weights:
    """Return the weights of what `PretrainedRun.execute` returns."""
    return Weights(log_weights(evaluated["reduced_potential"], evaluated["log_density"]))


def exact_weights(evaluated: Mapping[str, np.ndarray], in_state: np.ndarray) -> Weights:
    """Return the weights of the samples with an exact likelihood, ``exact_row``.

    Each stands for its share of the samples on its side of the state, so that sums over them
    estimate sums over all.

    Args:
        evaluated: What `PretrainedRun.execute` returns.
        in_state: Of every sample, ``(samples,)`` bool.
    """
    rows, valid = evaluated["exact_row"], evaluated["valid"]
    inside = in_state[rows]
    share = np.where(
        inside,
        (valid & in_state).sum() / max(inside.sum(), 1),
        (valid & ~in_state).sum() / max((~inside).sum(), 1),
    )
    exact = log_weights(evaluated["reduced_potential"][rows], evaluated["log_density_exact"])
    return Weights(exact + np.log(share))


def pretrained_metrics(
    config: PretrainedConfig,
    target: Target,
    evaluated: Mapping[str, np.ndarray],
    *,
    umbrella: FreeEnergyProfile | None = None,
    md_energies_kT: FloatArray | None = None,
    md_offset_kT: float = 0.0,
) -> dict[str, Any]:
    """Return the free energy, what its weights are worth, and the distance from other people's.

    Args:
        config: Of the run.
        target: Says what the state is.
        evaluated: What `PretrainedRun.execute` returns.
        umbrella: Profile along phi to compare with.
        md_energies_kT: Reduced potentials of a simulation to compare with, ``(frames,)``.
        md_offset_kT: What was added to these energies.

    Raises: InputError: no weight at all, or none on one side of the state.
    """
    weights = sample_weights(evaluated)
    clipped, clip = weights.clipped(config.evaluate.clip_fraction)
    valid = evaluated["valid"]
    in_state = target.state.contains(evaluated["phi"], evaluated["psi"])

    result = _delta_f(config, weights.log_weights, in_state)
    of_field = _delta_f(config, np.zeros(valid.sum()), in_state[valid])
    metrics: dict[str, Any] = {
        "delta_f_kT": result.value_kT,
        "delta_f_stderr_kT": result.stderr_kT,
        "delta_f_interval_kT": list(result.interval_kT),
        "delta_f_clipped_kT": _delta_f(config, clipped.log_weights, in_state).value_kT,
        "delta_f_unweighted_kT": of_field.value_kT,
        "delta_f_unweighted_stderr_kT": of_field.stderr_kT,
        "num_in_state": result.num_in_state,
        "ess_fraction": weights.ess_fraction,
        "ess_fraction_clipped": clipped.ess_fraction,
        "clip_fraction": clip.fraction,
        "clip_weight_removed": clip.weight_removed,
        "pareto_k": weights.pareto_k,
        "log_density_overfit_kT": float(
            evaluated["log_density_training"].mean() - evaluated["log_density"][valid].mean()
        ),
        "num_samples": len(valid),
        "num_broken": int((~evaluated["intact"]).sum()),
        "num_mirrored": int((evaluated["intact"] & evaluated["mirrored"]).sum()),
        "num_mixed": int((evaluated["intact"] & evaluated["mixed"]).sum()),
        "num_without_energy": int(weights.num_rejected - (~valid).sum()),
    }
    counts = {"num_rejected": weights.num_rejected, "ess_num_samples": weights.num_samples}
    judged = evidence(result) | counts | {"model_error_kT": None}
    if len(evaluated["exact_row"]):
        exact = _exact_delta_f(config, evaluated, in_state)
        judged = evidence(exact) | counts
        metrics |= _exact_metrics(exact, evaluated, in_state, md_energies_kT, md_offset_kT)
    # Of the exact estimate where there is one; a learned one alone is never reliable.
    metrics["verdict"] = judge(judged).as_record()
    if umbrella is not None:
        value, error = profile_delta_f(umbrella, require_interval(target.state))
        metrics |= {"delta_f_umbrella_kT": value, "delta_f_umbrella_stderr_kT": error}
    if md_energies_kT is not None:
        finite = np.isfinite(evaluated["reduced_potential"])
        energies = evaluated["reduced_potential"][finite] + md_offset_kT
        metrics["energy_w2_unweighted_kT"] = wasserstein_2(energies, md_energies_kT)
        metrics["energy_w2_reweighted_kT"] = wasserstein_2(
            energies, md_energies_kT, weights.normalised[finite]
        )
    return metrics


def _exact_delta_f(
    config: PretrainedConfig, evaluated: Mapping[str, np.ndarray], in_state: np.ndarray
) -> FreeEnergyDifference:
    weights = exact_weights(evaluated, in_state)
    return _delta_f(config, weights.log_weights, in_state[evaluated["exact_row"]])


def _exact_metrics(
    result: FreeEnergyDifference,
    evaluated: Mapping[str, np.ndarray],
    in_state: np.ndarray,
    md_energies_kT: FloatArray | None,
    md_offset_kT: float,
) -> dict[str, Any]:
    """Return what exact likelihoods make of the samples, and the learned density's errors."""
    rows = evaluated["exact_row"]
    weights, inside = exact_weights(evaluated, in_state), in_state[rows]
    outside = ~inside
    error = evaluated["log_density"][rows] - evaluated["log_density_exact"]
    metrics = {
        "delta_f_exact_kT": result.value_kT,
        "delta_f_exact_stderr_kT": result.stderr_kT,
        "delta_f_exact_interval_kT": list(result.interval_kT),
        "num_exact": len(rows),
        "num_exact_in_state": int(inside.sum()),
        "ess_fraction_exact_in_state": Weights(weights.log_weights[inside]).ess_fraction,
        "ess_fraction_exact": Weights(weights.log_weights[outside]).ess_fraction,
        # Outside the state, where nearly all samples are.
        "log_density_error_sd_kT": float(error[outside].std()),
        "log_density_offset_kT": float(error[outside].mean()),
    }
    if md_energies_kT is not None:
        energies = evaluated["reduced_potential"][rows] + md_offset_kT
        finite = np.isfinite(energies)
        metrics["energy_w2_exact_kT"] = wasserstein_2(
            energies[finite], md_energies_kT, weights.normalised[finite]
        )
    return metrics


def _delta_f(
    config: PretrainedConfig, log_weights: FloatArray, in_state: np.ndarray
) -> FreeEnergyDifference:
    return delta_f(
        log_weights,
        in_state,
        num_bootstrap=config.evaluate.num_bootstrap,
        seed=seed_from(config.seed, "bootstrap"),
    )


def summary(metrics: Mapping[str, Any]) -> str:
    """Return a short table of what `pretrained_metrics` returned."""
    has_exact = "delta_f_exact_kT" in metrics
    # The estimate first that the verdict is of.
    rows = {
        **(
            {
                "delta_f, exact": with_interval(metrics, "delta_f_exact"),
                "delta_f, learned": with_error(metrics, "delta_f"),
            }
            if has_exact
            else {"delta_f": with_interval(metrics, "delta_f")}
        ),
        "delta_f, unweighted": with_error(metrics, "delta_f_unweighted"),
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        "Pareto k": f"{metrics['pareto_k']:.2f}",
        "overfitting": f"{metrics['log_density_overfit_kT']:.2f} kT, by which training samples are "
        "likelier than held-out ones; samples.num_training lowers it",
        "samples": f"{metrics['num_mirrored']} mirrored, {metrics['num_broken']} broken, "
        f"{metrics['num_mixed']} mixed, {metrics['num_without_energy']} without energy",
    }
    if has_exact:
        rows["exact likelihoods"] = (
            f"{metrics['num_exact']}, learned ones off by "
            f"{metrics['log_density_error_sd_kT']:.2f} kT"
        )
    rows["verdict"] = " ".join(Verdict.from_record(metrics["verdict"]).lines())
    if "delta_f_umbrella_kT" in metrics:
        rows["umbrella sampling"] = with_error(metrics, "delta_f_umbrella")
    if "energy_w2_reweighted_kT" in metrics:
        rows["energies, W2 to MD"] = (
            f"{metrics['energy_w2_reweighted_kT']:.2f} kT, "
            f"unweighted {metrics['energy_w2_unweighted_kT']:.2f} kT"
        )
    return "\n".join(f"{name:<20} {text}" for name, text in rows.items())


_NORMAL_95 = 1.96


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
    if not (centres.ndim == 1 and len(centres) > 1 and centres.shape == mean.shape):
        raise _refusal(path, "one value per centre", f"{centres.shape} and {mean.shape}")
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
    """
    inside = (state[0] < profile.centres) & (profile.centres < state[1])
    probability = np.exp(-profile.value_kT)
    populated = inside & (probability > 0)
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
