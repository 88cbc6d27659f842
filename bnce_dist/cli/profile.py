"""The command line of free-energy profiles."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import Overwrite, errors_as_one_line, place, require_new_output
from bnce_dist.runs.profile import profile as profile_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce profile runs/alanine_dipeptide --along psi")
def profile(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", parser=place)],
    along: Annotated[
        str,
        typer.Option(
            help="phi, psi, omega, chi1 to chi5 (chi1:2), C1-C2-C3-C4, distance(A,B), angle(A,B,C)."
        ),
    ],
    over: Annotated[
        str | None, typer.Option("--and", help="A second torsion: the free energy over both.")
    ] = None,
    num_bins: Annotated[int, typer.Option(min=2, help="Bins over the circle, or the range.")] = 60,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", parser=place, help="Path without .csv and .png, in the run if absent."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Reweight a finished run along an order parameter or over two torsions: table and figure."""
    with errors_as_one_line():
        require_new_output(output, ".csv", ".png", overwrite=overwrite)
        names = (along,) if over is None else (along, over)
        stem = output or folder / "figures" / _file_name(names)
        for path in profile_of(folder, *names).write(stem, num_bins):
            typer.echo(path)
        if over is None:
            typer.echo(
                "Bands are of sampling alone: what the tails of the weights may hide is not in "
                "them (hidden_* in metrics.json)."
            )


def _file_name(names: tuple[str, ...]) -> str:
    """Return what the files are called, in letters that every file system takes."""
    return "profile_" + re.sub(r"[^\w.-]+", "-", "_".join(names).replace(":", "")).strip("-")
