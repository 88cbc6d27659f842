"""The command line that writes a run's models to one file."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import errors_as_one_line, place
from bnce_dist.data.atomic import require_new_files
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.shared_generator import SharedGenerator, is_shared

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce export runs/alanine_dipeptide adp.pt --half")
def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or another model file.", parser=place)
    ],
    output: Annotated[Path, typer.Argument(help="The file to write.", parser=place)],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Store the networks' weights in 16 bits.")
    ] = False,
) -> None:
    """Write a run's models to one file.

    It holds the emulator, the energy model, the distribution they are for, and the run's results;
    ``bnce sample --model`` takes it anywhere. Of a transferable run it holds what all molecules
    share; ``bnce sample --model FILE --sequence KS`` says which is meant.
    """
    with errors_as_one_line():
        require_new_files([output], overwrite=overwrite)
        model = SharedGenerator.load(run) if is_shared(run) else BoltzmannGenerator.load(run)
        model.save(output, half_precision=half)
    typer.echo(f"{output} ({output.stat().st_size / 1e3:.0f} kB)")
