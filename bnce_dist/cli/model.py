"""How command lines name a trained model, and get it."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.core.device import DEVICE_VARIABLE
from bnce_dist.core.errors import InputError
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.shared_generator import SharedGenerator
from bnce_dist.generator.shipped import load_shipped
from bnce_dist.generator.target import Target

AUTOMATIC = "auto"
_AS_THE_RUN = AnnealingConfig()

Sequence = Annotated[
    str | None,
    typer.Option(help="Molecule of a model that comes with the package, or of a --model of many."),
]
Model = Annotated[
    str | None, typer.Option(help="Folder of a run, file of a model, or models:/NAME@ALIAS.")
]
Device = Annotated[
    str,
    typer.Option("--device", envvar=DEVICE_VARIABLE, help="Where to compute: cpu, cuda or cuda:N."),
]


def annealing_through(levels: str) -> AnnealingConfig:
    """Return what ``--anneal`` asks for: a number of levels, or ``auto`` for what the run did.

    Raises: typer.BadParameter: neither.
    """
    if levels == AUTOMATIC:
        return _AS_THE_RUN
    if levels.isdecimal() and int(levels) >= 1:
        return AnnealingConfig(num_levels=int(levels))
    raise typer.BadParameter(
        f"expected a number of levels from 1 on, or {AUTOMATIC}, got {levels!r}"
    )


Annealing = Annotated[
    AnnealingConfig | None,
    typer.Option(
        "--anneal",
        parser=annealing_through,
        metavar="LEVELS",
        help=f"Anneal to the target through so many levels, or as the run did: {AUTOMATIC}.",
    ),
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="Weight to this temperature instead [K].")
]
Potential = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Weight to this potential instead: xtb, or OpenMM's files, separated by commas.",
    ),
]

REGISTRY = "models:/"


def load_model(sequence: str | None, model: str | None, device: str) -> BoltzmannGenerator:
    """Return the model that the options name, on its device.

    Both options together name a molecule and a model of many.

    Raises: InputError: none of the options, no such model or molecule, or no such device.
    """
    if model is None:
        if sequence is not None:
            return load_shipped(sequence, device=device)
        raise InputError(
            "command line",
            expected="--sequence, --model or both",
            got="none",
            remedy="give e.g. --sequence ACE-ALA-NME, or --model runs/mine",
        )
    path = _fetched(model) if model.startswith(REGISTRY) else model
    if sequence is None:
        return BoltzmannGenerator.load(path, device=device)
    return SharedGenerator.load(path).of_molecule(sequence).to(device)


def as_asked(
    generator: BoltzmannGenerator, annealing: AnnealingConfig | None
) -> AnnealingConfig | None:
    """Return how to anneal, given what ``--anneal`` asks for."""
    return generator.annealing if annealing == _AS_THE_RUN else annealing


def aimed(target: Target, to: str | None, temperature_kelvin: float | None) -> Target | None:
    """Return what samples are weighted to instead, if it is something else.

    Args:
        target: Of the model.
        to: ``xtb``, or OpenMM's files of a force field, separated by commas.
        temperature_kelvin: Another temperature [K].

    Raises: InputError: an unknown force field, tblite not installed, or no temperature.
    """
    if to is None and temperature_kelvin is None:
        return None
    if temperature_kelvin is not None:
        target = target.at_temperature(temperature_kelvin)
    if to is not None:
        target = target.with_xtb() if to == "xtb" else target.with_force_field(*to.split(","))
    return target


def _fetched(uri: str) -> Path:
    # MLflow takes seconds to import.
    from bnce_dist.tracking.models import fetch_model

    return fetch_model(uri)
