"""The command line of reports."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import errors_as_one_line, place
from bnce_dist.runs.report import write_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce report runs/alanine_dipeptide")
def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a finished run or fleet.", parser=place)
    ],
) -> None:
    """Write the HTML report of a finished run or fleet again."""
    with errors_as_one_line():
        typer.echo(write_report(folder))
