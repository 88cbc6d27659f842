"""From evaluated samples to the numbers of a run; everything here is float64 numpy."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import logsumexp

from bnce_dist.config.section import (
    Count,
    Fraction,
    Positives,
    Section,
)
from bnce_dist.core.annealing import MAX_LEVELS, num_levels_at_limit
from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import ExactSubset, select_for_exact
from bnce_dist.core.free_energy import (
    MIN_EXACT,
    FreeEnergyDifference,
    delta_f,
    shift_by_folds,
    stratified_delta_f,
)
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.samples import FloatArray, Samples


class WeightingConfig(Section):
    """The weights of samples, and the exact likelihoods that they are corrected and judged by."""

    renamed: ClassVar[Mapping[str, str]] = {"num_exact_top": "num_exact_weighted"}

    num_exact: Annotated[int, Field(ge=10)] = 1_600
    """Of the samples, the first ones get an exact likelihood, which corrects the learned one; as
    many as num_samples is all of them."""
    num_exact_weighted: Annotated[int, Field(ge=0)] | None = None
    """Samples that get one too, drawn in proportion to their weights, half of them on each side of
    the state: they make the correction's error smaller than as many at random; null is as many as
    num_exact, and at least ten on each side."""
    clip_fraction: Fraction = 0.002
    """Share of the largest weights that is clipped."""
    num_bootstrap: Annotated[int, Field(ge=20)] = 500
    """Bootstrap resamples."""
    annealing: AnnealingConfig = AnnealingConfig()

    def exact_subset(self, log_weights: FloatArray, in_state: NDArray[np.bool_]) -> ExactSubset:
        """Return which samples get an exact likelihood.

        Args:
            log_weights: By the learned density, ``(n,)`` [nats].
            in_state: Whether each is in the state, ``(n,)``.

        Raises: InputError: fewer samples than `num_exact`.
        """
        asked = self.num_exact_weighted
        return select_for_exact(
            log_weights,
            in_state,
            num_random=self.num_exact,
            num_weighted=max(self.num_exact if asked is None else asked, 2 * MIN_EXACT),
        )


class EvaluateConfig(WeightingConfig):
    """Held-out samples, their weights, and the exact likelihood to judge by."""

    num_samples: Annotated[int, Field(ge=100)] = 16_000
    """Held-out samples that are reweighted."""
    shard_size: Count = 1_000
    """Samples per shard."""
    exact_shard_size: Count = 50
    """Samples per shard of the exact likelihood."""
    num_exact_frames: Annotated[int, Field(ge=0)] = 400
    """Frames of the simulation that get one, half of them on each side of the state, for a second
    estimate by Bennett's ratio; not in Cartesian coordinates."""
    temperatures_kelvin: Positives = ()
    """Temperatures [K] besides the target's at which the free energy is asked for, with its energy
    and entropy; the samples are annealed to each, with the same noise, so that errors of the
    temperatures go together."""

    @model_validator(mode="after")
    def _check_temperatures(self) -> "EvaluateConfig":
        distinct = len(set(self.temperatures_kelvin)) == len(self.temperatures_kelvin)
        self.require(distinct, "every temperature once", "temperatures_kelvin")
        self.require(
            self.annealing.enabled or not self.temperatures_kelvin,
            "annealing.enabled where other temperatures are asked for",
            "temperatures_kelvin",
        )
        return self

    @model_validator(mode="after")
    def _check_counts(self) -> "EvaluateConfig":
        self.require(
            self.num_exact <= self.num_samples,
            "num_exact at most num_samples",
            "num_exact",
            "num_samples",
        )
        both_sides = self.num_exact_frames != 1
        self.require(both_sides, "num_exact_frames 0 or at least 2", "num_exact_frames")
        return self


_ESTIMATES = (
    *("delta_f_kT", "delta_f_stderr_kT", "delta_f_interval_kT"),
    *("delta_f_learned_kT", "delta_f_learned_stderr_kT"),
    *("delta_f_exact_kT", "delta_f_exact_stderr_kT"),
    *("weight_in_state", "ess_fraction", "ess_fraction_clipped", "ess_in_state"),
    *("ess_outside_state", "pareto_k", "energy_w2_kT", "torsion_w2_rad"),
)
"""What is made of weights."""


def evaluation_metrics(samples: Samples, config: WeightingConfig, seed: int) -> dict[str, Any]:
    """Return the free energy, the diagnostics of its weights, and the density's errors.

    Args:
        samples: The evaluated samples.
        config: Clipping and bootstrap.
        seed: Of the run; decides the bootstrap.

    Raises: InputError: no weight at all, or none on one side of the state.
    """
    weights = Weights(samples.log_weights)
    clipped, clip = weights.clipped(config.clip_fraction)
    learned_weights = Weights(samples.log_weights_learned)
    learned = _delta_f(learned_weights, samples.in_state, config, seed)
    of_clipped = _delta_f(clipped, samples.in_state, config, seed)
    result = stratified_delta_f(
        samples.log_weights_learned,
        samples.log_weights_exact,
        samples.in_state,
        num_random=samples.num_random,
        inclusion=samples.inclusion,
        num_bootstrap=config.num_bootstrap,
        seed=seed_from(seed, "bootstrap"),
    )
    fold_shift = _fold_shift(samples)
    return {
        "delta_f_kT": result.value_kT,
        "delta_f_stderr_kT": result.stderr_kT,
        "delta_f_interval_kT": list(result.interval_reaching(fold_shift or 0.0)),
        "delta_f_fold_shift_kT": fold_shift,
        # By the energy model alone; its error bar knows nothing of the model's own error.
        "delta_f_learned_kT": learned.value_kT,
        "delta_f_learned_stderr_kT": learned.stderr_kT,
        "delta_f_clipped_kT": of_clipped.value_kT,
        "num_in_state": result.num_in_state,
        "weight_in_state": result.weight_in_state,
        **weight_diagnostics(weights, samples.in_state),
        **evidence(result),
        "ess_fraction_clipped": clipped.ess_fraction,
        "clip_fraction": clip.fraction,
        "clip_weight_removed": clip.weight_removed,
        **_counts(samples),
        "ess_fraction_learned": learned_weights.ess_fraction,
        "pareto_k_learned": learned_weights.pareto_k,
        "log_z": _log_z(learned_weights),
        "num_exact_weighted": int(
            np.isfinite(samples.log_density_exact[samples.num_random :]).sum()
        ),
        **_exact_metrics(samples, config, seed),
        **_density_metrics(samples),
    }


def metrics_without_weights(samples: Samples) -> dict[str, Any]:
    """Return what can be said of samples none of which has any weight; estimates are None.

    Args:
        samples: All broken or of the wrong chirality.
    """
    return dict.fromkeys(_ESTIMATES) | {
        "num_in_state": int(samples.in_state.sum()),
        "ess_num_samples": len(samples.valid),
        "num_rejected": len(samples.valid),
        **_counts(samples),
        **_density_metrics(samples),
    }


def one_step_metrics(samples: Samples, config: WeightingConfig, seed: int) -> dict[str, Any]:
    """Return what the weights would be without annealing, under names that say so.

    Args:
        samples: As they were drawn.
        config: Bootstrap.
        seed: Of the run; decides the bootstrap.

    Returns: All None if the samples have no weight on one side of the state before annealing.
    """
    names = {
        "delta_f_kT": "delta_f_one_step_kT",
        "delta_f_stderr_kT": "delta_f_one_step_stderr_kT",
        "delta_f_learned_kT": "delta_f_learned_one_step_kT",
        "delta_f_learned_stderr_kT": "delta_f_learned_one_step_stderr_kT",
        "ess_fraction": "ess_fraction_one_step",
        "ess_fraction_learned": "ess_fraction_learned_one_step",
        "pareto_k": "pareto_k_one_step",
        "pareto_k_learned": "pareto_k_learned_one_step",
        "correction_kT": "correction_one_step_kT",
        "correction_stderr_kT": "correction_one_step_stderr_kT",
    }
    try:
        metrics = evaluation_metrics(samples, config, seed)
    except InputError:
        return dict.fromkeys(names.values())
    return {new: metrics[old] for old, new in names.items()}


def annealing_metrics(moves: Mapping[str, np.ndarray], config: AnnealingConfig) -> dict[str, Any]:
    """Return how annealing went.

    Args:
        moves: The data set that it leaves, and the ``fractions`` of its schedule.
        config: What was asked of it.
    """
    fractions = moves["fractions"]
    limit = None if config.num_levels else config.max_levels or MAX_LEVELS
    return {
        "annealing_settings": config.model_dump(mode="json"),
        "annealing_num_levels": len(fractions),
        "annealing_num_levels_at_limit": num_levels_at_limit(fractions, limit) if limit else 0,
        "annealing_acceptance": moves["accepted"].mean(0).tolist(),
        "annealing_num_clashes": int(moves["clashed"].sum()),
        "annealing_cpu_seconds_per_sample": float(moves["cpu_seconds"].mean()),
    }


def evidence(result: FreeEnergyDifference) -> dict[str, Any]:
    """Return what a verdict on a free energy needs, under the names of ``metrics.json``."""
    sides = {"in_state": result.state, "outside_state": result.rest}
    numbers: dict[str, Any] = {
        "pareto_k": max(side.pareto_k for side in sides.values()),
        "largest_weight_share": max(side.largest_share for side in sides.values()),
        "largest_variance_share": result.largest_variance_share,
        "correction_kT": result.rest.correction_kT - result.state.correction_kT,
        "correction_stderr_kT": math.hypot(
            result.rest.correction_stderr_kT, result.state.correction_stderr_kT
        ),
    }
    numbers["model_error_kT"] = math.hypot(
        result.rest.calibration_stderr_kT, result.state.calibration_stderr_kT
    )
    for name, side in sides.items():
        numbers |= {
            f"num_exact_{name}": side.num_exact,
            f"ess_exact_{name}": side.ess,
            f"pareto_k_{name}": side.pareto_k,
            f"hidden_{name}_kT": side.known_hidden_kT,
            f"no_mean_probability_{name}": side.no_mean_probability,
            f"correction_{name}_kT": side.correction_kT,
            f"correction_{name}_stderr_kT": side.correction_stderr_kT,
        }
    return numbers


def weight_diagnostics(weights: Weights, in_state: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the quality of weights under the names of ``metrics.json``.

    Args:
        weights: Of every sample.
        in_state: Whether each sample is in the state, ``(samples,)``.

    Raises: InputError: too few samples for the tail's shape.
    """
    return {
        "ess_fraction": weights.ess_fraction,
        "ess_num_samples": weights.num_samples,
        "ess_in_state": _ess(weights.log_weights[in_state]),
        "ess_outside_state": _ess(weights.log_weights[~in_state]),
        "pareto_k": weights.pareto_k,
        "num_rejected": weights.num_rejected,
    }


def _counts(samples: Samples) -> dict[str, int]:
    return {
        "num_invalid": int((~samples.valid).sum()),
        "num_wrong_chirality": int((samples.valid & ~samples.native_chirality).sum()),
        "num_mirrored": int((samples.is_molecule & samples.mirrored).sum()),
    }


def _exact_metrics(samples: Samples, config: WeightingConfig, seed: int) -> dict[str, Any]:
    count = samples.num_random
    weights = Weights(samples.log_weights_exact[:count])
    # The random ones alone may all lie on one side of the state; the result has the heavy ones.
    exact = None
    with suppress(InputError):
        exact = _delta_f(weights, samples.in_state[:count], config, seed)
    return {
        "delta_f_exact_kT": exact and exact.value_kT,
        "delta_f_exact_stderr_kT": exact and exact.stderr_kT,
        "ess_fraction_exact": weights.ess_fraction,
        "log_z_exact": _log_z(weights),
    }


def _fold_shift(samples: Samples) -> float | None:
    """Return what folds of the sampler do to the result, by the samples drawn at random [kT]."""
    if samples.inverted is None:
        return None
    count = slice(samples.num_random)
    return shift_by_folds(
        samples.log_weights_exact[count], samples.in_state[count], samples.inverted[count]
    )


def _density_metrics(samples: Samples) -> dict[str, Any]:
    """Return the error of the learned density, and what it costs beside the exact one."""
    count = samples.num_random
    error = samples.log_density[:count] - samples.log_density_exact[:count]
    learned_cost, exact_cost = np.median(samples.cpu_seconds), np.median(samples.cpu_seconds_exact)
    return {
        "num_negative_determinants": None
        if samples.inverted is None
        else int(samples.inverted.sum()),
        "log_density_rmse_kT": float(np.sqrt(np.square(error).mean())),
        # The part of it that weights see: they are blind to the offset.
        "log_density_error_sd_kT": float(error.std()),
        "log_density_offset_kT": float(error.mean()),
        "log_density_num_samples": count,
        "speedup_over_exact": float(exact_cost / learned_cost),
        "learned_cpu_seconds_per_sample": float(learned_cost),
        "exact_cpu_seconds_per_sample": float(exact_cost),
    }


def _delta_f(
    weights: Weights, in_state: NDArray[np.bool_], config: WeightingConfig, seed: int
) -> FreeEnergyDifference:
    return delta_f(
        weights.log_weights,
        in_state,
        num_bootstrap=config.num_bootstrap,
        seed=seed_from(seed, "bootstrap"),
    )


def _log_z(weights: Weights) -> float:
    """Return the log of the mean weight: the target's log normalisation constant [nats]."""
    return float(logsumexp(weights.log_weights) - np.log(weights.num_samples))


def _ess(log_weights: FloatArray) -> float:
    """Return the effective sample size of a part of the samples, which may have no weight."""
    return Weights(log_weights).ess if np.isfinite(log_weights).any() else 0.0
