"""The command line of the pipeline: checks first, then one call."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bnce_dist.command_line import begin_work, create_executor, errors_as_one_line, run_path
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.folder import RunFolder
from bnce_dist.pipeline.overrides import load_config, to_yaml
from bnce_dist.pipeline.plan import Plan
from bnce_dist.pipeline.provenance import commit
from bnce_dist.pipeline.results import load_figure_data
from bnce_dist.pipeline.run import STAGE_NAMES, Pipeline
from bnce_dist.pipeline.summary import summary
from bnce_dist.pipeline.target import Target
from bnce_dist.tracking.create import create_tracker
from bnce_dist.tracking.tracker import Status, Tracker

DEFAULT_NAME = "alanine_dipeptide"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings that win over the file, e.g. seed=7."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file; what it leaves out keeps its default.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; by default that of the file.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    stage: Annotated[
        str, typer.Option(help=f"Stop after this stage: {', '.join(STAGE_NAMES)}.")
    ] = STAGE_NAMES[-1],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a run whose configuration changed: redo the stages affected.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and start nothing.")
    ] = False,
) -> None:
    """From a molecule to a free-energy difference: simulate, train, sample, reweight.

    The same command again continues an interrupted run; finished stages are not repeated.
    """
    with errors_as_one_line():
        resolved = load_config(config, overrides or [])
        folder = RunFolder(run_path(output, name or (config.stem if config else DEFAULT_NAME)))
        _require_stage(stage)
        if dry_run:
            _print_plan(resolved, folder)
            return
        _run(resolved, folder, stage, resume)


def _run(config: Config, folder: RunFolder, last_stage: str, resume: bool) -> None:
    """Check everything that can be known before anything expensive, then run."""
    begin_work()
    if not resume:
        folder.require_same_run(config)
    target = Target.from_config(config.target)
    folder.require_space(Plan.of(config, target).storage_bytes)
    with folder.lock():
        executor = create_executor(config.cluster.executor, config.cluster.num_workers)
        tracker = create_tracker(
            config.tracking.backend, folder.path, experiment=config.tracking.experiment
        )
        params = config.model_dump(mode="json", exclude={"cluster", "tracking"})
        tracker.start_run(folder.path.name, params, {"commit": str(commit())})
        status: Status = "FAILED"
        try:
            metrics = Pipeline(config, target, folder, executor, tracker).run(last_stage)
            if metrics is not None:
                _report(config, target, folder, tracker, metrics)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)


def _report(
    config: Config, target: Target, folder: RunFolder, tracker: Tracker, metrics: dict[str, Any]
) -> None:
    """Draw the figures, record everything and print the summary."""
    from bnce_dist.report.figures import write_figures
    from bnce_dist.report.results import RunResults

    data = load_figure_data(folder, config, target, metrics)
    for figure in write_figures(folder.path / "figures", RunResults(**data)):
        tracker.log_figure(figure)
    tracker.log_artifact(folder.path / "metrics.json")
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
    tracker.log_metrics(numbers)
    typer.echo(summary(metrics, folder.path))


def _require_stage(name: str) -> None:
    if name not in STAGE_NAMES:
        raise InputError(
            "--stage", expected=f"one of {', '.join(STAGE_NAMES)}", got=name, remedy="choose one"
        )


def _print_plan(config: Config, folder: RunFolder) -> None:
    typer.echo(to_yaml(config))
    for line in Plan.of(config, Target.from_config(config.target)).lines():
        typer.echo(f"# {line}")
    typer.echo(f"# output: {folder.path}")
