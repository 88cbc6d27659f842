"""The command line that learns the density of pretrained samples and reweights them to a target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bnce_dist.cli.common import begin_work, errors_as_one_line, run_path
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.core.metrics import FreeEnergyProfile, free_energy_profile
from bnce_dist.data.atomic import write_json
from bnce_dist.distributed.launch import create_executor
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.metrics import (
    FloatArray,
    load_energies,
    load_umbrella,
    pretrained_metrics,
    sample_weights,
    summary,
)
from bnce_dist.runs.pretrained.run import PretrainedRun

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce evaluate-pretrained weights=unweighted_ot_ema.pt")
def evaluate_pretrained(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings, e.g. weights=unweighted_ot_ema.pt target.potential=force_field.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file; what it leaves out keeps its default.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "published",
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    umbrella: Annotated[
        Path | None, typer.Option(help="Profile to compare with: xs, f_i_mean, f_i_std (.npz).")
    ] = None,
    md_energies: Annotated[
        Path | None, typer.Option(help="Energies to compare with, in kT (.npy).")
    ] = None,
    md_offset: Annotated[float, typer.Option(help="What was added to those energies [kT].")] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings and start nothing.")
    ] = False,
) -> None:
    """Sample a pretrained field, learn the samples' density, reweight them to a potential.

    The same command again continues an interrupted run; finished work is not repeated.
    """
    with errors_as_one_line():
        settings = load_config(PretrainedConfig, config, overrides or [])
        folder = run_path(output, name)
        profile = load_umbrella(umbrella) if umbrella else None
        energies = load_energies(md_energies) if md_energies else None
        if dry_run:
            typer.echo(to_yaml(settings), nl=False)
            return
        begin_work()
        # The work is spread over processes; more threads in each would fight for the cores.
        torch.set_num_threads(1)
        run = PretrainedRun(settings, folder)
        cluster = settings.cluster
        evaluated = run.execute(create_executor(cluster.executor, cluster.num_workers))
        metrics = pretrained_metrics(
            settings,
            run.target,
            evaluated,
            umbrella=profile,
            md_energies_kT=energies,
            md_offset_kT=md_offset,
        )
        write_json(folder / "metrics.json", metrics)
        _write_figures(run, evaluated, metrics, profile, energies, md_offset)
    typer.echo(f"{summary(metrics)}\n{'folder':<20} {folder}")


def _write_figures(
    run: PretrainedRun,
    evaluated: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
    umbrella: FreeEnergyProfile | None,
    md_energies_kT: FloatArray | None,
    md_offset_kT: float,
) -> None:
    """Draw the profile and the energies beside those that are there to compare with."""
    # matplotlib takes a second to import, which neither --help nor an error should wait for.
    from bnce_dist.report.energies import energy_figure
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.profile import profile_figure

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
            state=run.target.state_phi,
        )
        save_figure(profile, run.folder.path / "figures" / "free_energy_profile.png")
    if md_energies_kT is not None:
        energies = evaluated["reduced_potential"][valid] + md_offset_kT
        ensembles = {
            "Emulator": (energies, np.zeros_like(energies)),
            "Reweighted": (energies, weights.log_weights[valid]),
            "Molecular dynamics": (md_energies_kT, np.zeros_like(md_energies_kT)),
        }
        save_figure(energy_figure(ensembles), run.folder.path / "figures" / "energies.png")
