"""The numbers of a run on a pretrained field."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from bnce_dist.chem.state import State
from bnce_dist.core.errors import InputError
from bnce_dist.core.free_energy import delta_f
from bnce_dist.core.metrics import wasserstein_2
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.generator.metrics import annealing_metrics, evaluation_metrics, one_step_metrics
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.verdict import PRETRAINED, Verdict, judge
from bnce_dist.pipeline.summary import (
    estimate_rows,
    reference_rows,
    table_of,
    with_error,
    with_interval,
)
from bnce_dist.runs.pretrained.comparison import Comparison, profile_delta_f, require_interval
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.run import Evaluated

_UMBRELLA = "umbrella sampling of others"


def pretrained_metrics(
    config: PretrainedConfig, state: State, evaluated: Evaluated, comparison: Comparison
) -> dict[str, Any]:
    """Return the free energy, what its weights are worth, and the distance from other people's.

    Args:
        config: Of the run.
        state: Its free energy is asked for.
        evaluated: What the run made.
        comparison: What to compare with.

    Raises: InputError: no weight at all, or none on one side of the state.
    """
    samples, drawn = evaluated.samples, evaluated.drawn
    metrics = evaluation_metrics(samples, config.evaluate, config.seed)
    if evaluated.moves is not None:
        metrics |= annealing_metrics(evaluated.moves, config.evaluate.annealing)
        metrics |= _one_step(config, drawn)
    molecules = drawn.is_molecule
    of_field = None
    with suppress(InputError):  # none of them may be on one side
        of_field = delta_f(
            np.zeros(int(molecules.sum())),
            drawn.in_state[molecules],
            num_bootstrap=config.evaluate.num_bootstrap,
            seed=seed_from(config.seed, "bootstrap"),
        )
    metrics |= {
        "delta_f_unweighted_kT": of_field and of_field.value_kT,
        "delta_f_unweighted_stderr_kT": of_field and of_field.stderr_kT,
        "num_in_state_unweighted": int(drawn.in_state[molecules].sum()),
        "num_samples": len(molecules),
        "num_without_energy": int((molecules & ~np.isfinite(drawn.reduced_potential)).sum()),
        "log_density_overfit_kT": float(
            evaluated.log_density_training.mean() - drawn.log_density[molecules].mean()
        ),
        "delta_f_reference_kT": None,
        "delta_f_reference_source": None,
        "delta_f_reference_run_kT": None,
    }
    if comparison.umbrella is not None:
        value, error = profile_delta_f(comparison.umbrella, require_interval(state))
        metrics |= {
            "delta_f_reference_kT": value,
            "delta_f_reference_stderr_kT": error,
            "delta_f_reference_source": _UMBRELLA,
        }
    metrics["verdict"] = judge(metrics, PRETRAINED).as_record()
    return metrics | _energy_distances(evaluated, comparison)


def _one_step(config: PretrainedConfig, drawn: Samples) -> dict[str, Any]:
    """Return what the samples are worth where the field left them, with a verdict of its own."""
    one_step = one_step_metrics(drawn, config.evaluate, config.seed)
    if one_step["delta_f_one_step_kT"] is None:
        return one_step
    metrics = evaluation_metrics(drawn, config.evaluate, config.seed)
    return one_step | {
        "delta_f_exact_one_step_kT": metrics["delta_f_exact_kT"],
        "delta_f_exact_one_step_stderr_kT": metrics["delta_f_exact_stderr_kT"],
        "ess_fraction_exact_one_step": metrics["ess_fraction_exact"],
        "verdict_one_step": judge(metrics, PRETRAINED).as_record(),
    }


def _energy_distances(evaluated: Evaluated, comparison: Comparison) -> dict[str, float]:
    """Return how far energies are from those of a simulation, by the way they were weighted."""
    if comparison.md_energies_kT is None:
        return {}
    samples, drawn = evaluated.samples, evaluated.drawn
    ensembles: dict[str, tuple[Samples, np.ndarray]] = {
        "emulator_": (drawn, np.where(drawn.is_molecule, 0.0, -np.inf)),
        "": (samples, samples.log_weights),
    }
    if evaluated.moves is not None:
        with suppress(InputError):  # there may be no weights on one side before annealing
            ensembles["one_step_"] = (drawn, drawn.log_weights)
    distances = {}
    for name, (ensemble, log_weights) in ensembles.items():
        finite = np.isfinite(ensemble.reduced_potential)
        distances[f"energy_w2_{name}kT"] = wasserstein_2(
            ensemble.reduced_potential[finite] + comparison.md_offset_kT,
            comparison.md_energies_kT,
            Weights(log_weights).normalised[finite],
        )
    return distances


def summary(metrics: Mapping[str, Any]) -> str:
    """Return a short table of what `pretrained_metrics` returned."""
    rows = {
        "delta_f": with_interval(metrics, "delta_f"),
        **reference_rows(metrics),
        **estimate_rows(metrics),
        "unweighted": with_error(metrics, "delta_f_unweighted"),
        "log density error": f"{metrics['log_density_error_sd_kT']:.2f} kT",
        "overfitting": f"{metrics['log_density_overfit_kT']:.2f} kT, by which training samples are "
        "likelier than held-out ones; samples.num_training lowers it",
        "samples": f"{metrics['num_mirrored']} mirrored, {metrics['num_invalid']} broken, "
        f"{metrics['num_wrong_chirality']} mixed, {metrics['num_without_energy']} without energy",
    }
    if "energy_w2_kT" in metrics:
        rows["energies, W2 to MD"] = (
            f"{metrics['energy_w2_kT']:.2f} kT, "
            f"unweighted {metrics['energy_w2_emulator_kT']:.2f} kT"
        )
    return table_of(rows, Verdict.from_record(metrics["verdict"]))
