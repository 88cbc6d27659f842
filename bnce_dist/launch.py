"""One run from its checks to its report; fleets are made of these."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.distributed.parallelism import Parallelism
from bnce_dist.pipeline.config import Config, EmulatorConfig, EnergyConfig, TrackingConfig
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.fleet import Outcome
from bnce_dist.pipeline.fleet_table import PUBLISHED_MD_DELTA_F_KT, fleet_record, fleet_table
from bnce_dist.pipeline.folder import RunFolder
from bnce_dist.pipeline.models import (
    build_energy_matching,
    build_flow_matching,
    train_settings,
)
from bnce_dist.pipeline.plan import Plan
from bnce_dist.pipeline.provenance import commit
from bnce_dist.pipeline.results import load_figure_data
from bnce_dist.pipeline.run import STAGE_NAMES, Pipeline
from bnce_dist.pipeline.target import Target
from bnce_dist.tracking.create import create_tracker
from bnce_dist.tracking.tracker import Status, Tracker


def make_tracker(config: TrackingConfig, folder: Path) -> Tracker:
    """Return the tracker of what is written into a folder.

    Raises: InputError: the store does not answer.
    """
    return create_tracker(config.backend, folder, experiment=config.experiment, store=config.store)


def check_run(config: Config, folder: RunFolder, *, resume: bool) -> Target:
    """Check everything that can be known before anything expensive.

    Args:
        config: Of the run.
        folder: Of the run.
        resume: Whether the folder may hold a run of another configuration.

    Raises: InputError: unusable settings, another run's folder, or too little space.
    """
    if not resume:
        folder.require_same_run(config)
    target = Target.from_config(config.target)
    folder.require_space(Plan.of(config, target).storage_bytes)
    return target


def parallelism_of(config: Config, last_stage: str) -> Parallelism:
    """Return how the run's trainings are spread.

    Raises: InputError: the strategy cannot train a model that the run comes to.
    """
    cluster = config.cluster
    parallelism = Parallelism(
        strategy=cluster.strategy,
        zero_stage=cluster.zero_stage,
        accumulation_steps=cluster.accumulation_steps,
    )
    trainings: dict[str, tuple[EmulatorConfig | EnergyConfig, Callable[[], nn.Module]]] = {
        "train_emulator": (config.emulator, partial(build_flow_matching, config.emulator, 1, 1)),
        "train_energy": (config.energy, partial(build_energy_matching, config.energy, 1, 1)),
    }
    for stage in STAGE_NAMES[: STAGE_NAMES.index(last_stage) + 1]:
        if stage in trainings:
            section, build_objective = trainings[stage]
            parallelism.require_supported(build_objective, train_settings(section, config.seed))
    return parallelism


def run_molecule(
    config: Config, folder: RunFolder, executor: Executor, *, last_stage: str, resume: bool = False
) -> dict[str, Any] | None:
    """Run the pipeline of one molecule with its tracking and its figures.

    Args:
        config: Of the run.
        folder: Of the run; work that is finished there is not repeated.
        executor: Does the work.
        last_stage: Where to stop.
        resume: Whether the folder may hold a run of another configuration.

    Returns: The content of ``metrics.json``; nothing if the last stage of all was not reached.
    Raises: InputError: as `check_run`, or a tracking store that does not answer.
    """
    target = check_run(config, folder, resume=resume)
    with folder.lock():
        tracker = make_tracker(config.tracking, folder.path)
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
    return metrics


def with_common_store(config: Config, folder: Path) -> Config:
    """Return the configuration with its MLflow store named, for runs on other machines too."""
    if config.tracking.backend != "mlflow" or config.tracking.store:
        return config
    from bnce_dist.tracking.mlflow_tracker import store_address

    tracking = config.tracking.model_copy(update={"store": store_address(folder)})
    return config.model_copy(update={"tracking": tracking})


@contextlib.contextmanager
def tracked_fleet(config: Config, folder: Path) -> Iterator[Tracker]:
    """Track a fleet as a run of its own, beside those of its members.

    It is opened before any member: a store that is new must be set up by one process alone.
    """
    tracker = make_tracker(config.tracking, folder)
    params = config.model_dump(mode="json", exclude={"cluster", "tracking", "target"})
    tracker.start_run(folder.name, params, {"commit": str(commit())})
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        tracker.finish(status)


def write_fleet(outcomes: Sequence[Outcome], folder: Path, tracker: Tracker) -> None:
    """Leave ``fleet.json``, ``fleet.md`` and ``fleet.png`` in the folder and record them."""
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.fleet import fleet_figure

    record = fleet_record(outcomes)
    write_json(folder / "fleet.json", record)
    with atomic_path(folder / "fleet.md") as temporary:
        temporary.write_text(fleet_table(outcomes) + "\n")
    tracker.log_artifact(folder / "fleet.json")
    tracker.log_artifact(folder / "fleet.md")
    tracker.log_metrics(record["summary"])
    finished = {o.name: o.metrics for o in outcomes if o.metrics is not None}
    if finished:
        save_figure(fleet_figure(finished, PUBLISHED_MD_DELTA_F_KT), folder / "fleet.png")
        tracker.log_figure(folder / "fleet.png")


def _report(
    config: Config, target: Target, folder: RunFolder, tracker: Tracker, metrics: dict[str, Any]
) -> None:
    """Draw the figures and record everything."""
    from bnce_dist.report.figures import write_figures
    from bnce_dist.report.results import RunResults

    data = load_figure_data(folder, config, target, metrics)
    for figure in write_figures(folder.path / "figures", RunResults(**data)):
        tracker.log_figure(figure)
    tracker.log_artifact(folder.path / "metrics.json")
    tracker.log_metrics({k: float(v) for k, v in metrics.items() if isinstance(v, int | float)})
