"""How command lines name a trained model, and get it."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.core.errors import InputError
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator, load_shipped

Sequence = Annotated[
    str | None, typer.Option(help="Molecule of a model that comes with the package.")
]
Model = Annotated[
    str | None, typer.Option(help="Folder of a run, file of a model, or models:/NAME@ALIAS.")
]


REGISTRY = "models:/"


def load_model(sequence: str | None, model: str | None) -> BoltzmannGenerator:
    """Return the model that the options name.

    Raises: InputError: both or none of the options, or no such model.
    """
    if sequence is not None and model is None:
        return load_shipped(sequence)
    if model is not None and sequence is None:
        return BoltzmannGenerator.load(_fetched(model) if model.startswith(REGISTRY) else model)
    raise InputError(
        "command line",
        expected="one of --sequence and --model",
        got="both" if model else "none",
        remedy="give e.g. --sequence ACE-ALA-NME, or --model runs/mine",
    )


def _fetched(uri: str) -> Path:
    # MLflow takes seconds to import.
    from bnce_dist.tracking.models import fetch_model

    return fetch_model(uri)
