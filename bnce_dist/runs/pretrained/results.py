"""A pretrained field from its samples to numbers and figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnce_dist.core.metrics import free_energy_profile
from bnce_dist.core.weights import Weights
from bnce_dist.data.atomic import write_json
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.pretrained.comparison import Comparison, profile_delta_f, require_interval
from bnce_dist.runs.pretrained.metrics import pretrained_metrics
from bnce_dist.runs.pretrained.run import Evaluated, PretrainedRun


def evaluate_pretrained_field(
    run: PretrainedRun, executor: Executor, comparison: Comparison | None = None
) -> dict[str, Any]:
    """Sample a pretrained field, learn the samples' density, and weight them to a potential.

    Args:
        run: Checked; what its folder holds already is not repeated.
        executor: Does the work.
        comparison: What to compare with.

    Returns: The content of ``metrics.json``, which is left in the folder with the figures.
    Raises: InputError: as `PretrainedRun.execute`, no sample on one side of the state,
        or a profile to compare with that says nothing of the state.
    """
    comparison = comparison or Comparison()
    if comparison.umbrella is not None:
        profile_delta_f(comparison.umbrella, require_interval(run.target.state))
    evaluated = run.execute(executor)
    metrics = pretrained_metrics(run.config, run.target.state, evaluated, comparison)
    write_json(run.folder.path / "metrics.json", metrics)
    _write_figures(run, evaluated, metrics, comparison)
    return metrics


def _write_figures(
    run: PretrainedRun,
    evaluated: Evaluated,
    metrics: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    """Draw the profile and the energies beside those that are there to compare with."""
    # matplotlib takes a second to import, which neither --help nor an error should wait for.
    from bnce_dist.report.energies import energy_figure
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.profile import profile_figure

    umbrella, md_energies_kT = comparison.umbrella, comparison.md_energies_kT
    samples, drawn, seed = evaluated.samples, evaluated.drawn, run.config.seed
    weights, molecules = Weights(samples.log_weights), drawn.is_molecule
    if umbrella is not None:
        num_bins = len(umbrella.centres)
        profile = profile_figure(
            free_energy_profile(samples.phi, weights.normalised, num_bins, seed=seed),
            umbrella,
            free_energy_profile(drawn.phi[molecules], num_bins=num_bins, seed=seed),
            delta_f=(metrics["delta_f_kT"], metrics["delta_f_stderr_kT"]),
            delta_f_reference=(
                metrics["delta_f_reference_kT"],
                metrics["delta_f_reference_stderr_kT"],
            ),
            state=require_interval(run.target.state),
        )
        save_figure(profile, run.folder.path / "figures" / "free_energy_profile.png")
    if md_energies_kT is not None:
        offset_kT = comparison.md_offset_kT
        ensembles = {
            "Emulator": (
                drawn.reduced_potential[molecules] + offset_kT,
                np.zeros(int(molecules.sum())),
            ),
            "Reweighted": (
                samples.reduced_potential[molecules] + offset_kT,
                weights.log_weights[molecules],
            ),
            "Molecular dynamics": (md_energies_kT, np.zeros_like(md_energies_kT)),
        }
        save_figure(energy_figure(ensembles), run.folder.path / "figures" / "energies.png")
