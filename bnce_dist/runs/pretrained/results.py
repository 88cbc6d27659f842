"""A pretrained field from its samples to numbers and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnce_dist.core.metrics import FreeEnergyProfile, free_energy_profile
from bnce_dist.data.atomic import write_json
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.pretrained.metrics import (
    FloatArray,
    pretrained_metrics,
    require_interval,
    sample_weights,
)
from bnce_dist.runs.pretrained.run import PretrainedRun


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


def evaluate_pretrained_field(
    run: PretrainedRun, executor: Executor, comparison: Comparison | None = None
) -> dict[str, Any]:
    """Sample a pretrained field, learn the samples' density, and reweight them to a potential.

    Args:
        run: Checked; what its folder holds already is not repeated.
        executor: Does the work.
        comparison: What to compare with.

    Returns: The content of ``metrics.json``, which is left in the folder with the figures.
    Raises: InputError: as `PretrainedRun.execute`, no sample on one side of the state,
        or a profile to compare with and a state that is no interval of phi.
    """
    comparison = comparison or Comparison()
    if comparison.umbrella is not None:
        require_interval(run.target.state)
    evaluated = run.execute(executor)
    metrics = pretrained_metrics(
        run.config,
        run.target,
        evaluated,
        umbrella=comparison.umbrella,
        md_energies_kT=comparison.md_energies_kT,
        md_offset_kT=comparison.md_offset_kT,
    )
    write_json(run.folder.path / "metrics.json", metrics)
    _write_figures(run, evaluated, metrics, comparison)
    return metrics


def _write_figures(
    run: PretrainedRun,
    evaluated: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    """Draw the profile and the energies beside those that are there to compare with."""
    # matplotlib takes a second to import, which neither --help nor an error should wait for.
    from bnce_dist.report.energies import energy_figure
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.profile import profile_figure

    umbrella, md_energies_kT = comparison.umbrella, comparison.md_energies_kT
    weights, valid, seed = sample_weights(evaluated), evaluated["valid"], run.config.seed
    if umbrella is not None:
        num_bins, phi = len(umbrella.centres), evaluated["phi"]
        profile = profile_figure(
            free_energy_profile(phi, weights.normalised, num_bins, seed=seed),
            umbrella,
            free_energy_profile(phi[valid], num_bins=num_bins, seed=seed),
            delta_f=(metrics["delta_f_kT"], metrics["delta_f_stderr_kT"]),
            delta_f_reference=(
                metrics["delta_f_umbrella_kT"],
                metrics["delta_f_umbrella_stderr_kT"],
            ),
            state=require_interval(run.target.state),
        )
        save_figure(profile, run.folder.path / "figures" / "free_energy_profile.png")
    if md_energies_kT is not None:
        energies = evaluated["reduced_potential"][valid] + comparison.md_offset_kT
        ensembles = {
            "Emulator": (energies, np.zeros_like(energies)),
            "Reweighted": (energies, weights.log_weights[valid]),
            "Molecular dynamics": (md_energies_kT, np.zeros_like(md_energies_kT)),
        }
        save_figure(energy_figure(ensembles), run.folder.path / "figures" / "energies.png")
