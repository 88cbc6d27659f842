"""The command line of sweeps: checks first, then trials on a cluster, then the winner."""

from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import begin_work, errors_as_one_line, place, run_path
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.runs.sweep.checks import resolve, workers_per_trial
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.jobs import JobConfig
from bnce_dist.runs.sweep.outcome import ranked, table_lines

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sweep jobs/configs/sweeps/planar_weights.yaml")
def sweep(
    sweep: Annotated[
        Path, typer.Argument(help="YAML file; jobs/configs/sweeps holds examples.", parser=place)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that win over the file, e.g. num_trials=20 base.energy.num_steps=500.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep; by default that of the file.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the sweeps' folders.", parser=place)
    ] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the sweep in the folder, if there is one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and start nothing.")
    ] = False,
) -> None:
    """Many trials of a job over a space of settings; the best becomes a configuration.

    After an interruption the same command with --resume goes on: trials that ended are not
    repeated, the others continue from their checkpoints.
    """
    with errors_as_one_line("the same command with --resume"):
        config = load_config(SweepConfig, sweep, overrides or [])
        folder = SweepFolder(run_path(output, name or sweep.stem))
        resolved, base = resolve(config)
        folder.require_same_sweep(resolved, resume=resume)
        if dry_run:
            _print_plan(resolved, base, folder)
            return
        # Ray takes seconds to import, which neither --help nor an error should wait for.
        from bnce_dist.distributed.sweep import run_sweep

        begin_work()
        best = run_sweep(resolved, base, folder)
    for line in table_lines(ranked(folder.results, resolved), resolved):
        typer.echo(line)
    typer.echo(f"best: trial {best.name}, {resolved.metric} = {best.metric:.4g}")
    best_path = folder.path / "best.yaml"
    typer.echo(f"its configuration: python jobs/{resolved.job}.py --config {best_path}")


def _print_plan(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> None:
    workers = workers_per_trial(base)
    each = f"{workers} Ray Train workers" if workers else "one core"
    typer.echo(to_yaml(sweep))
    typer.echo(f"# {sweep.num_trials} trials, each on {each}; {len(folder.results)} ended before")
    typer.echo(f"# output: {folder.path}")
