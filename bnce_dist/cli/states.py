"""The command line of free energies between states."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import Overwrite, errors_as_one_line, place, require_new_output
from bnce_dist.core.errors import InputError
from bnce_dist.runs.states import states as states_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog='Example: bnce states runs/mine "c7ax=phi in [0, 2]"')
def states(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.", parser=place)],
    conditions: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=CONDITION...",
            help='States: "a=phi in [0, 2] and not distance(2:N,2:O) in [0, 0.35]" (rad, nm).',
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=place,
            help="Path without suffix, in the run if absent.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Free energies of a finished run between any states, with the errors of all differences."""
    with errors_as_one_line():
        named = _named(conditions)
        require_new_output(output, ".json", ".csv", overwrite=overwrite)
        found = states_of(folder, named)
        for line in found.lines():
            typer.echo(line)
        for path in found.write(output or folder / f"states_{'_'.join(named)}"):
            typer.echo(path)


def _named(arguments: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for argument in arguments:
        name, equals, condition = argument.partition("=")
        if not equals or name.strip() in named:
            raise InputError(
                "states", expected="NAME=CONDITION, every name once", got=repr(argument),
                remedy='write e.g. "c7ax=phi in [0, 2]"',
            )  # fmt: skip
        named[name.strip()] = condition
    return named
