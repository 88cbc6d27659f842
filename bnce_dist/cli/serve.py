"""The command line that serves a model over HTTP."""

from typing import Annotated

import typer

from bnce_dist.cli.common import errors_as_one_line
from bnce_dist.cli.model import Device
from bnce_dist.tracking.pyfunc import serve as serve_model

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce serve models:/ace-ala-nme@champion --port 5001")
def serve(
    model: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a served folder.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 5001,
    store: Annotated[
        str | None,
        typer.Option(help="MLflow's store; by default MLFLOW_TRACKING_URI, else runs/mlflow.db."),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Serve a registered model until interrupted, as ``mlflow models serve`` does."""
    with errors_as_one_line():
        serve_model(model, host=host, port=port, store=store, device=device)
