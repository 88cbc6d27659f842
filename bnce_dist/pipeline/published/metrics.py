"""The numbers of a run on a published field."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnce_dist.core.free_energy import delta_f
from bnce_dist.core.metrics import FreeEnergyProfile, wasserstein_2
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights, log_weights
from bnce_dist.pipeline.published.comparison import FloatArray, profile_delta_f
from bnce_dist.pipeline.published.config import PublishedConfig
from bnce_dist.pipeline.summary import with_error
from bnce_dist.pipeline.target import Target


def sample_weights(evaluated: Mapping[str, np.ndarray]) -> Weights:
    """Return the weights of what `PublishedRun.execute` returns."""
    return Weights(log_weights(evaluated["reduced_potential"], evaluated["log_density"]))


def published_metrics(
    config: PublishedConfig,
    target: Target,
    evaluated: Mapping[str, np.ndarray],
    *,
    umbrella: FreeEnergyProfile | None = None,
    md_energies_kt: FloatArray | None = None,
    md_offset_kt: float = 0.0,
) -> dict[str, Any]:
    """Return the free energy, what its weights are worth, and the distance from other people's.

    Args:
        config: Of the run.
        target: Says what the state is.
        evaluated: What `PublishedRun.execute` returns.
        umbrella: Profile along phi to compare with.
        md_energies_kt: Reduced potentials of a simulation to compare with, ``(frames,)``.
        md_offset_kt: What was added to these energies.

    Raises: InputError: no weight at all, or none on one side of the state.
    """
    weights = sample_weights(evaluated)
    clipped, clip = weights.clipped(config.evaluate.clip_fraction)
    valid, in_state = evaluated["valid"], target.in_state(evaluated["phi"])

    def free_energy(log_weights: FloatArray, inside: np.ndarray) -> Any:
        return delta_f(
            log_weights,
            inside,
            num_bootstrap=config.evaluate.num_bootstrap,
            seed=seed_from(config.seed, "bootstrap"),
        )

    result = free_energy(weights.log_weights, in_state)
    of_field = free_energy(np.zeros(valid.sum()), in_state[valid])
    metrics = {
        "delta_f_kT": result.value_kT,
        "delta_f_stderr_kT": result.stderr_kT,
        "delta_f_interval_kT": list(result.interval_kT),
        "delta_f_clipped_kT": free_energy(clipped.log_weights, in_state).value_kT,
        "delta_f_unweighted_kT": of_field.value_kT,
        "delta_f_unweighted_stderr_kT": of_field.stderr_kT,
        "num_in_state": result.num_in_state,
        "ess_fraction": weights.ess_fraction,
        "ess_fraction_clipped": clipped.ess_fraction,
        "clip_fraction": clip.fraction,
        "clip_weight_removed": clip.weight_removed,
        "pareto_k": weights.pareto_k,
        "num_samples": len(valid),
        "num_broken": int((~evaluated["intact"]).sum()),
        "num_mirrored": int((evaluated["intact"] & evaluated["mirrored"]).sum()),
        "num_mixed": int((evaluated["intact"] & evaluated["mixed"]).sum()),
        "num_without_energy": int(weights.num_rejected - (~valid).sum()),
    }
    if umbrella is not None:
        value, error = profile_delta_f(umbrella, target.state_phi)
        metrics |= {"delta_f_umbrella_kT": value, "delta_f_umbrella_stderr_kT": error}
    if md_energies_kt is not None:
        finite = np.isfinite(evaluated["reduced_potential"])
        energies = evaluated["reduced_potential"][finite] + md_offset_kt
        metrics["energy_w2_unweighted_kT"] = wasserstein_2(energies, md_energies_kt)
        metrics["energy_w2_reweighted_kT"] = wasserstein_2(
            energies, md_energies_kt, weights.normalised[finite]
        )
    return metrics


def summary(metrics: Mapping[str, Any]) -> str:
    """Return a short table of what `published_metrics` returned."""
    low, high = metrics["delta_f_interval_kT"]
    rows = {
        "delta_f": f"{with_error(metrics, 'delta_f')}, 95 % interval [{low:.2f}, {high:.2f}]",
        "delta_f, unweighted": with_error(metrics, "delta_f_unweighted"),
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        "Pareto k": f"{metrics['pareto_k']:.2f} (reliable below 0.7)",
        "samples": f"{metrics['num_mirrored']} mirrored, {metrics['num_broken']} broken, "
        f"{metrics['num_mixed']} mixed, {metrics['num_without_energy']} without energy",
    }
    if "delta_f_umbrella_kT" in metrics:
        rows["umbrella sampling"] = with_error(metrics, "delta_f_umbrella")
    if "energy_w2_reweighted_kT" in metrics:
        rows["energies, W2 to MD"] = (
            f"{metrics['energy_w2_reweighted_kT']:.2f} kT, "
            f"unweighted {metrics['energy_w2_unweighted_kT']:.2f} kT"
        )
    return "\n".join(f"{name:<20} {text}" for name, text in rows.items())
