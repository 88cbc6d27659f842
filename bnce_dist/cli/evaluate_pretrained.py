"""The command line that learns the density of pretrained samples and reweights them to a target."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from bnce_dist.cli.common import begin_work, errors_as_one_line, place, run_path
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.distributed.launch import create_executor
from bnce_dist.runs.pretrained.comparison import Comparison, load_energies, load_umbrella
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.metrics import summary
from bnce_dist.runs.pretrained.results import evaluate_pretrained_field
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
        Path | None,
        typer.Option(help="YAML file; what it leaves out keeps its default.", parser=place),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "pretrained",
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.", parser=place)] = Path(
        "runs"
    ),
    umbrella: Annotated[
        Path | None,
        typer.Option(help="Profile to compare with: xs, f_i_mean, f_i_std (.npz).", parser=place),
    ] = None,
    md_energies: Annotated[
        Path | None, typer.Option(help="Energies to compare with, in kT (.npy).", parser=place)
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
        metrics = evaluate_pretrained_field(
            PretrainedRun(settings, folder),
            create_executor(settings.cluster),
            Comparison(profile, energies, md_offset),
        )
    typer.echo(f"{summary(metrics)}\n{'folder':<20} {folder}")
