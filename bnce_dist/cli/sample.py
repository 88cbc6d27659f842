"""The command line that draws samples."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import errors_as_one_line
from bnce_dist.cli.model import Model, Sequence, load_model
from bnce_dist.generator.ensemble_file import require_output

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sample --sequence ACE-ALA-NME -n 1000 -o samples.npz")
def sample(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .npz, .dcd, .pdb or .xtc.")
    ],
    sequence: Sequence = None,
    model: Model = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="How many.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Draw weighted conformations from a trained model into a file.

    Weights and energies are in the .npz file, or in one beside a trajectory; beside DCD and XTC
    there is also a PDB file with the topology. XTC rounds positions to 0.001 nm, which moves
    energies by 0.86 kT (root mean square): it is for viewing only.
    """
    with errors_as_one_line():
        require_output(output, overwrite=overwrite)
        ensemble = load_model(sequence, model).sample(num_samples, seed)
        num_rejected, ess_fraction = ensemble.weights.num_rejected, ensemble.ess_fraction
        files = [str(path) for path in ensemble.save(output, overwrite=overwrite)]
    if as_json:
        record = {
            "files": files,
            "num_samples": num_samples,
            "num_rejected": num_rejected,
            "ess_fraction": ess_fraction,
            "seed": seed,
        }
        typer.echo(json.dumps(record))
    else:
        typer.echo(f"samples              {num_samples}, {num_rejected} of them without weight")
        typer.echo(f"effective samples    {ess_fraction:.3f} of all")
        typer.echo(f"files                {', '.join(files)}")
    if output.suffix == ".xtc":
        warning = "XTC rounds to 0.001 nm: for viewing only, energies are 0.86 kT (rms) off"
        typer.echo(f"warning: {warning}", err=True)
