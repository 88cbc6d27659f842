"""The command line of simulations: the pipeline up to its first stage."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import place
from bnce_dist.cli.train import train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce simulate --name adp target.sequence=ACE-ALA-NME")
def simulate(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings, as for bnce train."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the run.", parser=place)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.", parser=place)] = Path(
        "runs"
    ),
) -> None:
    """Simulate a molecule: its reference free energy and training data.

    ``bnce train`` with the same arguments goes on from there.
    """
    train(overrides, config, name, output, stage="simulate")
