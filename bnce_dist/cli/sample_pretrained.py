"""The command line that samples from pretrained weights."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import validate
from bnce_dist.cli.common import errors_as_one_line, place
from bnce_dist.cli.model import Device
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import require_new_files, require_writable
from bnce_dist.generator.ensemble_file import ARCHIVE
from bnce_dist.generator.long_sample import MOST_IN_MEMORY
from bnce_dist.runs.pretrained.field import PretrainedSampler, write_samples
from bnce_dist.runs.pretrained.long_sample import sample_into_file

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sample-pretrained unweighted_ot_ema.pt -n 500 -o samples.npz")
def sample_pretrained(
    weights: Annotated[
        Path, typer.Argument(help="A pretrained file, under its published name.", parser=place)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .npz file to write.", parser=place)
    ],
    sequence: Annotated[
        str | None, typer.Option(help="Molecule of a transferable field, e.g. AC.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="How many.")
    ] = 1000,
    num_steps: Annotated[int, typer.Option(min=1, help="Midpoint steps.")] = 25,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Sample a pretrained velocity field: positions in nm, our order of atoms, D mapped to L.

    Every sample is written with what is wrong with it, if anything; counts go to the terminal.
    More than 100 000 samples are drawn part by part into a hidden folder beside the file; the same
    command goes on where it was interrupted.
    """
    with errors_as_one_line():
        _require_output(output, overwrite=overwrite)
        molecule = Molecule.from_sequence(sequence) if sequence is not None else None
        sampler = PretrainedSampler.load(weights, molecule, device=device)
        with tqdm(total=num_samples, unit="sample", disable=None) as progress:

            def show(done: int) -> None:
                progress.update(done - progress.n)

            if num_samples > MOST_IN_MEMORY:
                counts = sample_into_file(
                    sampler,
                    weights,
                    output,
                    num_samples,
                    seed,
                    show,
                    num_steps=num_steps,
                    batch_size=batch_size,
                )
            else:
                positions = []
                z_prior = sampler.prior(num_samples, seed)
                for batch in sampler.sample(z_prior, num_steps=num_steps, batch_size=batch_size):
                    positions.append(batch)
                    progress.update(len(batch))
                validation = validate(sampler.molecule, torch.cat(positions))
                write_samples(output, sampler.molecule, validation)
                counts = validation.counts()
    for name, count in counts.items():
        typer.echo(f"{name:<14}{count:>8}")
    typer.echo(output)


def _require_output(output: Path, *, overwrite: bool) -> None:
    if output.suffix != ARCHIVE:
        raise InputError(
            f"ending of the output file {output}",
            expected=ARCHIVE,
            got=repr(output.suffix),
            remedy=f"name a {ARCHIVE} file; it holds the positions in nm",
        )
    require_new_files([output], overwrite=overwrite)
    require_writable(output.parent)
