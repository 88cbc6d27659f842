"""How command lines name a trained model, and get it."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.boltzmann_generator import BoltzmannGenerator
from bnce_dist.pipeline.shipped import load_shipped

Sequence = Annotated[
    str | None, typer.Option(help="Molecule of a model that comes with the package.")
]
Model = Annotated[str | None, typer.Option(help="Folder of a run, or file of a model.")]


def load_model(sequence: str | None, model: str | None) -> BoltzmannGenerator:
    """Return the model that the options name.

    Raises: InputError: both or none of the options, or no such model.
    """
    if sequence is not None and model is None:
        return load_shipped(sequence)
    if model is not None and sequence is None:
        return BoltzmannGenerator.load(Path(model))
    raise InputError(
        "command line",
        expected="one of --sequence and --model",
        got="both" if model else "none",
        remedy="give e.g. --sequence ACE-ALA-NME, or --model runs/mine",
    )
