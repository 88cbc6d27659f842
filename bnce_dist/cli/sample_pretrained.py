"""The command line that samples from pretrained weights."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import validate
from bnce_dist.cli.common import errors_as_one_line
from bnce_dist.runs.pretrained.field import PretrainedSampler, write_samples

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sample-pretrained unweighted_ot_ema.pt -n 500 -o samples.npz")
def sample_pretrained(
    weights: Annotated[Path, typer.Argument(help="A pretrained file, under its published name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    sequence: Annotated[
        str | None, typer.Option(help="Molecule of a transferable field, e.g. AC.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="How many.")
    ] = 1000,
    num_steps: Annotated[int, typer.Option(min=1, help="Midpoint steps.")] = 25,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Sample a pretrained velocity field: positions in nm, our order of atoms, D mapped to L.

    Every sample is written with what is wrong with it, if anything; counts go to the terminal.
    """
    with errors_as_one_line():
        molecule = Molecule.from_sequence(sequence) if sequence is not None else None
        sampler = PretrainedSampler.load(weights, molecule)
        z_prior = sampler.prior(num_samples, seed)
        batches = sampler.sample(z_prior, num_steps=num_steps, batch_size=batch_size)
        with tqdm(total=num_samples, unit="sample", disable=None) as progress:
            positions = []
            for batch in batches:
                positions.append(batch)
                progress.update(len(batch))
        validation = validate(sampler.molecule, torch.cat(positions))
        write_samples(output, sampler.molecule, validation)
    for name, count in validation.counts().items():
        typer.echo(f"{name:<14}{count:>8}")
    typer.echo(output)
