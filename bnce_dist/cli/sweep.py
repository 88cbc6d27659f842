"""The command line of studies: checks first, then trials on a cluster, then the winner."""

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
from bnce_dist.runs.sweep.config import StudyConfig
from bnce_dist.runs.sweep.folder import (
    OUTCOME,
    StudyFolder,
    ranked,
    study_columns,
    table_lines,
    track,
    write_outcome,
)
from bnce_dist.runs.sweep.jobs import JOBS, JobConfig
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.progress import Progress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce sweep jobs/configs/sweeps/toy_weights.yaml")
def sweep(
    study: Annotated[Path, typer.Argument(help="YAML file; jobs/configs/sweeps holds examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that win over the file, e.g. num_trials=20 base.energy.num_steps=500.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; by default that of the file.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the studies' folders.")] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the study in the folder, if there is one.")
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
        config = load_config(StudyConfig, study, overrides or [])
        folder = StudyFolder(run_path(output, name or study.stem))
        resolved, base = resolve(config)
        folder.require_same_study(resolved, resume=resume)
        if dry_run:
            _print_plan(resolved, base, folder)
            return
        _run(resolved, base, folder)


def _print_plan(study: StudyConfig, base: JobConfig, folder: StudyFolder) -> None:
    workers = workers_per_trial(base)
    each = f"{workers} Ray Train workers" if workers else "one core"
    typer.echo(to_yaml(study))
    typer.echo(f"# {study.num_trials} trials, each on {each}; {len(folder.results)} ended before")
    typer.echo(f"# output: {folder.path}")


def _run(study: StudyConfig, base: JobConfig, folder: StudyFolder) -> None:
    # Ray takes seconds to import, which neither --help nor an error should wait for.
    from bnce_dist.distributed.sweep import concurrent_trials

    begin_work()
    run_folder = RunFolder(folder.path)
    run_folder.require_space(0)
    with run_folder.lock():
        concurrent_trials(study, base)
        params = study.model_dump(mode="json", include={"job", "metric", "searcher", "scheduler"})
        with tracked(study.tracking, folder.path, params) as tracker:
            folder.write_config(study)
            _run_trials(study, base, folder, tracker)
            _report(study, base, folder, tracker)


def _run_trials(study: StudyConfig, base: JobConfig, folder: StudyFolder, tracker: Tracker) -> None:
    """Compute what trials share, then the trials that have not ended."""
    from bnce_dist.distributed.sweep import run_study

    cluster = base.cluster
    create = partial(
        create_executor, parallelism=_parallelism(base), require_gpus=cluster.require_gpus
    )
    together = create(cluster.executor or "local", cluster.num_workers)
    JOBS[study.job].prepare(base, study.space, folder.shared, together, tracker)
    workers = workers_per_trial(base)
    kind: Literal["ray", "local"] = "ray" if workers else "local"
    alone = partial(create, kind, workers or None)
    results = folder.results
    for result in results:  # a driver that was killed may have recorded them on disk alone
        track(folder.trial(int(result.name)), tracker)
    with Progress("trials", total=study.num_trials, unit="trial", done=len(results)) as progress:

        def on_end(result: TrialResult) -> None:
            track(folder.trial(int(result.name)), tracker)
            results.append(result)
            best = ranked(results, study)[0].metric
            progress.update(len(results), note="" if best is None else f"best {best:.4g}")

        run_study(study, base, folder, alone, on_end)


def _parallelism(base: JobConfig) -> Parallelism:
    """Return how the workers of a training share it, and check that they can."""
    return parallelism_of(base, STAGE_NAMES[-1]) if isinstance(base, Config) else DATA_PARALLEL


def _report(study: StudyConfig, base: JobConfig, folder: StudyFolder, tracker: Tracker) -> None:
    """Write the winner, draw the figures, record everything and print the table."""
    from bnce_dist.report.study import StudyResults, write_study_figures

    best = write_outcome(study, base, folder)
    for line in table_lines(ranked(folder.results, study), study):
        typer.echo(line)
    columns = StudyResults(**study_columns(study, folder))
    for figure in write_study_figures(folder.path / "figures", columns):
        tracker.log_figure(figure)
    for name in OUTCOME:
        if (folder.path / name).exists():
            tracker.log_artifact(folder.path / name)
    typer.echo(f"best: trial {best.name}, {study.metric} = {best.metric:.4g}")
    typer.echo(
        f"its configuration: python jobs/{study.job}.py --config {folder.path / 'best.yaml'}"
    )
