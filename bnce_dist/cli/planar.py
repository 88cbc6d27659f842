"""The command line of the planar systems: one run, or the table of all."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from bnce_dist.cli.common import (
    FAILED,
    begin_work,
    errors_as_one_line,
    place,
    require_printable,
    run_path,
)
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.core.errors import InputError
from bnce_dist.core.systems import SYSTEMS
from bnce_dist.data.atomic import read_json
from bnce_dist.distributed.launch import create_executor
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.planar.config import OBJECTIVES, PlanarConfig
from bnce_dist.runs.planar.run import run_tracked
from bnce_dist.runs.planar.table import (
    PUBLISHED_SYSTEMS,
    run_table,
)

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
RECIPES: Mapping[str, Path | None] = {
    "ours": None,
    "paper": CONFIGS / "planar_paper.yaml",
    "paper-reduced": CONFIGS / "planar_paper_reduced.yaml",
}
"""Files of the recipes; ours is that of the defaults."""
TABLE_RECIPES = ("ours", "paper-reduced")
QUICK_FACTOR = 8


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce planar --system checkerboard --quick")
def planar(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. energy.num_negatives=64."),
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(SYSTEMS)}; several with --table.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(OBJECTIVES)}; several with --table.")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(RECIPES)}; several with --table.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file instead of a recipe.", parser=place)
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several with --table.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="So many seeds, from 0 on, with --table.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="All systems and objectives, our recipe and the paper's")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"1/{QUICK_FACTOR} of the steps: to look at.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run or of the table.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.", parser=place)] = Path(
        "runs/planar"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings of every run; start nothing.")
    ] = False,
) -> None:
    """Learn a density in the plane, and measure how far it is from the true one.

    The same command again continues an interrupted run; finished runs are not repeated.
    """
    choices = {"system": system, "objective": objective, "recipe": recipe, "seed": seed}
    with errors_as_one_line():
        require_printable(dry_run, as_json)
        _require_consistent(choices, overrides or [], config, seeds, table)
        if seeds is not None:
            choices["seed"] = list(range(seeds))
        configs = _configs(choices, overrides or [], config, table)
        configs = [one.shortened(QUICK_FACTOR) for one in configs] if quick else configs
        if dry_run:
            typer.echo("---\n".join(to_yaml(one) for one in configs), nl=False)
            return
        begin_work()
        # The networks are small: more threads would cost processor time and win none.
        torch.set_num_threads(1)
        if table:
            folder = run_path(output, name or ("table-quick" if quick else "table"))
            _run_table(configs, folder, as_json)
        else:
            _run_single(configs[0], run_path(output, name or configs[0].name), as_json)


def _require_consistent(
    choices: Mapping[str, Sequence[Any] | None],
    overrides: Sequence[str],
    config: Path | None,
    seeds: int | None,
    table: bool,
) -> None:
    """Refuse options that contradict each other."""
    keys = {override.partition("=")[0] for override in overrides}
    several = [f"--{key}" for key, values in choices.items() if len(values or ()) > 1]
    several += ["--seeds"] if seeds is not None else []
    twice = [f"--{key} and {key}=" for key, values in choices.items() if values and key in keys]
    fixed = [f"{key}=" for key in choices if table and key in keys]
    if choices["recipe"] and config:
        _refuse("one of --recipe and --config", "both", "leave one out")
    if choices["seed"] and seeds is not None:
        _refuse("one of --seed and --seeds", "both", "leave one out")
    if seeds is not None and seeds < 1:
        _refuse("--seeds at least 1", str(seeds), "ask for one seed or more")
    if several and not table:
        _refuse("one run", f"several by {several[0]}", "give --table, or a single value")
    if fixed:
        _refuse("options to choose a table's runs", fixed[0], f"give --{fixed[0][:-1]} instead")
    if twice:
        _refuse("a setting once", twice[0], "leave one out")


def _refuse(expected: str, got: str, remedy: str) -> None:
    raise InputError("command line", expected=expected, got=got, remedy=remedy)


def _configs(
    choices: Mapping[str, Sequence[Any] | None],
    overrides: Sequence[str],
    config: Path | None,
    table: bool,
) -> list[PlanarConfig]:
    """Return the settings of every run, all checked."""
    recipes = choices["recipe"] or (TABLE_RECIPES if table else ["ours"])
    files: list[Path | None] = [config] if config else [_recipe_file(name) for name in recipes]
    configs = []
    for file in files:
        named: dict[str, Sequence[Any]] = {
            key: values for key, values in choices.items() if values and key != "recipe"
        }
        if table:
            published = file is not None and file.stem.startswith("planar_paper")
            systems = PUBLISHED_SYSTEMS if published else SYSTEMS
            named = {"system": systems, "objective": OBJECTIVES, "seed": [0], **named}
        settings = [[f"{key}={value}" for value in values] for key, values in named.items()]
        configs += [
            load_config(PlanarConfig, file, [*chosen, *overrides])
            for chosen in itertools.product(*settings)
        ]
    return list({one.name: one for one in configs}.values())


def _recipe_file(name: str) -> Path | None:
    if name not in RECIPES:
        raise InputError.unknown("--recipe", name, RECIPES, "--config takes a file")
    file = RECIPES[name]
    if file is not None and not file.exists():
        raise InputError(
            f"--recipe {name}",
            expected=f"{file.name}, which only a checkout of the repository has",
            got="an installed package",
            remedy=f"give --config jobs/configs/{file.name} of a checkout, or --recipe ours",
        )
    return file


def _run_single(config: PlanarConfig, folder: Path, as_json: bool) -> None:
    metrics = run_tracked(config, folder, _executor(config, "local"))
    typer.echo(
        f"{config.system}, {config.objective}, {config.recipe}, seed {config.seed}\n"
        f"KL on the grid       {metrics['kl_grid']:.4f} nat\n"
        f"KL, normalised       {metrics['kl_normalised']:.4f} nat\n"
        f"log Z error          {metrics['log_z_error']:+.4f} nat\n"
        f"processor time       {metrics['cpu_seconds']:.0f} s, {metrics['steps']} steps\n"
        f"folder               {folder}"
    )
    if as_json:
        typer.echo(json.dumps(metrics))


def _run_table(configs: Sequence[PlanarConfig], folder: Path, as_json: bool) -> None:
    """Run what is missing; write and print the table of what is there."""
    if configs[0].tracking.backend != "none":
        _refuse("tracking.backend=none", "--table", "record single runs, or use jobs/sweep.py")
    results = run_table(configs, folder, _executor(configs[0], "ray"))
    typer.echo((folder / "table.md").read_text())
    typer.echo(f"folder {folder}")
    failed = [one for one in results if one.error]
    for one in failed:
        typer.echo(f"failed: {one.config.name}: {one.error}", err=True)
    if as_json:
        typer.echo(json.dumps(read_json(folder / "table.json")))
    if failed:
        raise typer.Exit(FAILED)


def _executor(config: PlanarConfig, default: Literal["ray", "local"]) -> Executor:
    return create_executor(config.cluster, default)
