"""The ``bnce`` command: it knows what its commands are called, and imports one when it is used."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from bnce_dist.cli.common import USER_ERROR

COMMANDS = {
    "simulate": ("simulate", "Simulate a molecule: its reference free energy and training data."),
    "train": (
        "train",
        "From a molecule to a free-energy difference: simulate, train, sample, reweight.",
    ),
    "sample": ("sample", "Draw weighted conformations from a trained model into a file."),
    "evaluate": ("evaluate", "Estimate a trained model's free energy, and judge the estimate."),
    "export": ("export", "Write a run's models to one file."),
    "report": ("report", "Write the HTML report of a finished run or fleet again."),
    "profile": (
        "profile",
        "Reweight a finished run along an order parameter or over two torsions: table and figure.",
    ),
    "states": (
        "states",
        "Free energies of a finished run between any states, with the errors of all differences.",
    ),
    "models": (
        "models",
        "List the models that can be sampled: those of the package, and those of the registry.",
    ),
    "serve": (
        "serve",
        "Serve a registered model until interrupted, as ``mlflow models serve`` does.",
    ),
    "sweep": (
        "sweep",
        "Many trials of a job over a space of settings; the best becomes a configuration.",
    ),
    "planar": (
        "planar",
        "Learn a density in the plane, and measure how far it is from the true one.",
    ),
    "sample-pretrained": (
        "sample_pretrained",
        "Sample a pretrained velocity field: positions in nm, our order of atoms, D mapped to L.",
    ),
    "evaluate-pretrained": (
        "evaluate_pretrained",
        "Sample a pretrained field, learn the samples' density, reweight them to a potential.",
    ),
    "preflight": (
        "preflight",
        "Check every node of the cluster in RAY_ADDRESS before a run, in seconds.",
    ),
}
"""Module in this package and one line of help, by name."""

RENAMED = {
    "toy": "planar",
    "import-weights": "sample-pretrained",
    "evaluate-weights": "evaluate-pretrained",
}
"""What commands of earlier versions are called now."""


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when they are invoked, not when they are listed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the command itself in the place of its entry in the list."""
        if args and args[0] in RENAMED:
            typer.echo(f"error: bnce {args[0]} is called bnce {RENAMED[args[0]]} now", err=True)
            raise typer.Exit(USER_ERROR)
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            module = import_module(f"bnce_dist.cli.{COMMANDS[name][0]}")
            command = typer.main.get_command(module.app)
        return name, command, rest


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(
    epilog="Exit codes: 0 success, 1 a member of a fleet or table failed, 2 unusable input, "
    "3 unreliable estimate with --strict, 130 interrupted."
)
def bnce() -> None:
    """From a molecule to a free-energy difference with an honest error bar."""
