"""The command line of sweeps: checks first, then trials on a cluster, then the winner."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from bnce_dist.cli.common import begin_work, errors_as_one_line, run_path
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.distributed.launch import create_executor, parallelism_of
from bnce_dist.distributed.parallelism import DATA_PARALLEL, Parallelism
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.runs.molecule import tracked
from bnce_dist.runs.sweep.checks import resolve, workers_per_trial
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import (
    OUTCOME,
    SweepFolder,
    ranked,
    sweep_columns,
    table_lines,
    track,
    write_outcome,
)
from bnce_dist.runs.sweep.jobs import JOBS, JobConfig
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.progress import Progress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sweep jobs/configs/sweeps/planar_weights.yaml")
def sweep(
    sweep: Annotated[Path, typer.Argument(help="YAML file; jobs/configs/sweeps holds examples.")],
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
    output: Annotated[Path, typer.Option(help="Folder of the sweeps' folders.")] = Path("runs"),
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
        _run(resolved, base, folder)


def _print_plan(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> None:
    workers = workers_per_trial(base)
    each = f"{workers} Ray Train workers" if workers else "one core"
    typer.echo(to_yaml(sweep))
    typer.echo(f"# {sweep.num_trials} trials, each on {each}; {len(folder.results)} ended before")
    typer.echo(f"# output: {folder.path}")


def _run(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> None:
    # Ray takes seconds to import, which neither --help nor an error should wait for.
    from bnce_dist.distributed.sweep import concurrent_trials

    begin_work()
    run_folder = RunFolder(folder.path)
    run_folder.require_space(0)
    with run_folder.lock():
        concurrent_trials(sweep, base)
        params = sweep.model_dump(mode="json", include={"job", "metric", "searcher", "scheduler"})
        with tracked(sweep.tracking, folder.path, params) as tracker:
            folder.write_config(sweep)
            _run_trials(sweep, base, folder, tracker)
            _report(sweep, base, folder, tracker)


def _run_trials(sweep: SweepConfig, base: JobConfig, folder: SweepFolder, tracker: Tracker) -> None:
    """Compute what trials share, then the trials that have not ended."""
    from bnce_dist.distributed.sweep import run_sweep

    cluster = base.cluster
    create = partial(
        create_executor, parallelism=_parallelism(base), require_gpus=cluster.require_gpus
    )
    together = create(cluster.executor or "local", cluster.num_workers)
    JOBS[sweep.job].prepare(base, sweep.space, folder.shared, together, tracker)
    workers = workers_per_trial(base)
    kind: Literal["ray", "local"] = "ray" if workers else "local"
    alone = partial(create, kind, workers or None)
    results = folder.results
    for result in results:  # a driver that was killed may have recorded them on disk alone
        track(folder.trial(int(result.name)), tracker)
    with Progress("trials", total=sweep.num_trials, unit="trial", done=len(results)) as progress:

        def on_end(result: TrialResult) -> None:
            track(folder.trial(int(result.name)), tracker)
            results.append(result)
            best = ranked(results, sweep)[0].metric
            progress.update(len(results), note="" if best is None else f"best {best:.4g}")

        run_sweep(sweep, base, folder, alone, on_end)


def _parallelism(base: JobConfig) -> Parallelism:
    """Return how the workers of a training share it, and check that they can."""
    return parallelism_of(base, STAGE_NAMES[-1]) if isinstance(base, Config) else DATA_PARALLEL


def _report(sweep: SweepConfig, base: JobConfig, folder: SweepFolder, tracker: Tracker) -> None:
    """Write the winner, draw the figures, record everything and print the table."""
    from bnce_dist.report.sweep import SweepResults, write_sweep_figures

    best = write_outcome(sweep, base, folder)
    for line in table_lines(ranked(folder.results, sweep), sweep):
        typer.echo(line)
    columns = SweepResults(**sweep_columns(sweep, folder))
    for figure in write_sweep_figures(folder.path / "figures", columns):
        tracker.log_figure(figure)
    for name in OUTCOME:
        if (folder.path / name).exists():
            tracker.log_artifact(folder.path / name)
    typer.echo(f"best: trial {best.name}, {sweep.metric} = {best.metric:.4g}")
    typer.echo(
        f"its configuration: python jobs/{sweep.job}.py --config {folder.path / 'best.yaml'}"
    )
