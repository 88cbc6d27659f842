"""The command line that lists models."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bnce_dist.cli.common import errors_as_one_line
from bnce_dist.core.errors import InputError
from bnce_dist.generator.shipped import shipped_sequences
from bnce_dist.tracking.models import RegisteredModel, list_models

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce models --json")
def models(
    store: Annotated[
        str | None,
        typer.Option(help="MLflow's store; by default MLFLOW_TRACKING_URI, else runs/mlflow.db."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """List the models that can be sampled: those of the package, and those of the registry."""
    with errors_as_one_line():
        registered = _registered(store)
    if as_json:
        record: dict[str, Any] = {
            "shipped": shipped_sequences(),
            "registered": [asdict(model) for model in registered],
        }
        typer.echo(json.dumps(record))
        return
    for sequence in shipped_sequences():
        typer.echo(f"--sequence {sequence}  (comes with the package)")
    for model in registered:
        typer.echo(f"--model {_line(model)}")


def _registered(store: str | None) -> list[RegisteredModel]:
    """Return the registry's models; no registry matters only where one was named."""
    try:
        return list_models(store)
    except InputError as error:
        if store is not None:
            raise
        typer.echo(f"note: {error}", err=True)
        return []


def _line(model: RegisteredModel) -> str:
    quality = model.quality
    names = " ".join(f"@{alias}" for alias in model.aliases)
    verdict = "reliable" if quality.reliable else "UNRELIABLE"
    low, high = quality.delta_f_low_kT, quality.delta_f_high_kT
    interval = "interval unknown" if low is None else f"95 % interval [{low:.2f}, {high:.2f}] kT"
    return (
        f"models:/{model.name}/{model.version}  {names}  run {quality.run}, {verdict}, "
        f"{interval}, error {quality.delta_f_error_kT:.2f} kT, ESS {quality.ess_fraction:.2f}"
    )
