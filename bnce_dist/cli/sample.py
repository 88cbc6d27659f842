"""The command line that draws samples."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bnce_dist.cli.common import errors_as_one_line, place
from bnce_dist.cli.model import (
    Annealing,
    Device,
    Model,
    Potential,
    Sequence,
    Temperature,
    aimed,
    as_asked,
    load_model,
)
from bnce_dist.core.errors import InputError
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.generator.ensemble_file import require_output
from bnce_dist.generator.long_sample import MOST_IN_MEMORY, WrittenSamples, sample_into_file
from bnce_dist.generator.unseen import unseen_notes
from bnce_dist.generator.verdict import nothing_left
from bnce_dist.training.progress import Progress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sample --sequence ACE-ALA-NME -n 1000 -o samples.npz")
def sample(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: .npz, .dcd, .pdb or .xtc.", parser=place
        ),
    ],
    sequence: Sequence = None,
    model: Model = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="How many.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    anneal: Annealing = None,
    temperature_kelvin: Temperature = None,
    to: Potential = None,
    resample: Annotated[
        int | None,
        typer.Option(min=1, help="Write so many conformations drawn by their weights instead."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Draw weighted conformations from a trained model into a file.

    Weights and energies are in the .npz file, or in one beside a trajectory; beside DCD and XTC
    there is also a PDB file with the topology. XTC rounds positions to 0.001 nm, which moves
    energies by 0.86 kT (root mean square): it is for viewing only.

    More than 100 000 samples are drawn part by part into a hidden folder beside the file; the same
    command goes on where it was interrupted.

    Annealed samples have more even weights. What --resample writes weighs the same throughout: a
    trajectory to look at, in which every state has its share.
    """
    with errors_as_one_line():
        require_output(output, overwrite=overwrite)
        generator = load_model(sequence, model, device)
        if num_samples > MOST_IN_MEMORY and (anneal or temperature_kelvin or to or resample):
            raise InputError(
                "--num-samples with --anneal, --temperature, --to or --resample",
                expected=f"at most {MOST_IN_MEMORY}, which fit in memory",
                got=num_samples,
                remedy="draw fewer, with another --seed each time",
            )
        if num_samples > MOST_IN_MEMORY:
            written = _write_parts(generator, output, num_samples, seed, overwrite=overwrite)
        else:
            ensemble = generator.sample(
                num_samples,
                seed,
                annealing=as_asked(generator, anneal),
                target=aimed(generator.target, to, temperature_kelvin),
            )
            written = _write(ensemble, output, resample, seed, overwrite=overwrite)
    files = [str(path) for path in written.files]
    verdict = nothing_left(num_samples) if written.ess_fraction is None else None
    size = {"ess_num_samples": num_samples, "ess_fraction": written.ess_fraction}
    notes = unseen_notes({**generator.metrics, **size})
    if as_json:
        record = {
            "files": files,
            "num_samples": num_samples,
            "num_levels": written.num_levels or None,
            "num_written": written.num_resampled or num_samples,
            "num_distinct": written.num_distinct,
            "num_rejected": written.num_rejected,
            "ess_fraction": written.ess_fraction,
            "seed": seed,
            **({"verdict": verdict.as_record()} if verdict else {}),
            **({"notes": notes} if notes else {}),
        }
        typer.echo(json.dumps(record))
    else:
        typer.echo(f"samples              {num_samples}, {written.num_rejected} without weight")
        if verdict:
            typer.echo("verdict              " + "\n".join(verdict.lines()))
        else:
            typer.echo(f"effective samples    {written.ess_fraction:.3f} of all")
        if written.num_levels:
            typer.echo(f"levels of annealing  {written.num_levels}")
        if written.num_resampled:
            typer.echo(
                f"resampled            {written.num_resampled}, {written.num_distinct} of them "
                "different"
            )
        for note in notes:
            typer.echo(f"note                 {note}")
        typer.echo(f"files                {', '.join(files)}")
    if output.suffix == ".xtc":
        warning = "XTC rounds to 0.001 nm: for viewing only, energies are 0.86 kT (rms) off"
        typer.echo(f"warning: {warning}", err=True)


def _write(
    ensemble: Ensemble, output: Path, resample: int | None, seed: int, *, overwrite: bool
) -> WrittenSamples:
    kept = ensemble.resampled(resample, seed) if resample and ensemble.has_weight else ensemble
    return WrittenSamples(
        kept.save(output, overwrite=overwrite),
        len(ensemble),
        ensemble.num_rejected,
        ensemble.ess_fraction if ensemble.has_weight else None,
        ensemble.num_levels,
        len(kept) if kept.is_resampled else 0,
        len(np.unique(kept.positions_nm, axis=0)) if kept.is_resampled else len(kept),
    )


def _write_parts(
    generator: BoltzmannGenerator, output: Path, num_samples: int, seed: int, *, overwrite: bool
) -> WrittenSamples:
    with Progress("sample", total=num_samples, unit="sample") as display:
        return sample_into_file(
            generator, output, num_samples, seed, display.update, overwrite=overwrite
        )
