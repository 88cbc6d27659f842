"""One run from its checks to its report; fleets are made of these."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, read_json, write_json
from bnce_dist.distributed.parallelism import DATA_PARALLEL, Parallelism
from bnce_dist.pipeline.boltzmann_generator import FILE_NAME, BoltzmannGenerator
from bnce_dist.pipeline.config import Config, TrackingConfig
from bnce_dist.pipeline.executor import Executor, LocalExecutor
from bnce_dist.pipeline.fleet import Outcome
from bnce_dist.pipeline.fleet_table import PUBLISHED_MD_DELTA_F_KT, fleet_record, fleet_table
from bnce_dist.pipeline.folder import RunFolder
from bnce_dist.pipeline.models import (
    ModelConfig,
    build_energy_matching,
    build_flow_matching,
    build_molecular_matching,
    train_settings,
)
from bnce_dist.pipeline.overrides import dotted_values, load_config
from bnce_dist.pipeline.plan import Plan
from bnce_dist.pipeline.provenance import commit
from bnce_dist.pipeline.results import load_figure_data, load_positions
from bnce_dist.pipeline.run import PER_MOLECULE, STAGE_NAMES, Pipeline, Recipe
from bnce_dist.pipeline.target import Target
from bnce_dist.pipeline.verdict import Verdict
from bnce_dist.tracking.create import create_tracker
from bnce_dist.tracking.tracker import Quality, Status, Tracker

REPORT_NAME = "report.html"


@contextlib.contextmanager
def tracked(config: TrackingConfig, folder: Path, params: Mapping[str, Any]) -> Iterator[Tracker]:
    """Track what is done in the block as one run, named as the folder.

    Args:
        config: Where it is recorded.
        folder: Of the run.
        params: Its settings.

    Raises: InputError: the store does not answer.
    """
    tracker = create_tracker(
        config.backend, folder, experiment=config.experiment, store=config.store
    )
    tracker.start_run(folder.name, params, {"commit": str(commit())})
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def check_run(
    config: Config, folder: RunFolder, *, resume: bool, recipe: Recipe = PER_MOLECULE
) -> Target:
    """Check everything that can be known before anything expensive.

    Args:
        config: Of the run.
        folder: Of the run.
        resume: Whether the folder may hold a run of another configuration.
        recipe: Of the run.

    Raises: InputError: unusable settings, another run's folder, or too little space.
    """
    if not resume:
        folder.require_same_run(config)
    target = Target.from_config(config.target)
    plan = Plan.of(config, target, is_cartesian=recipe.is_cartesian)
    folder.require_space(plan.storage_bytes)
    return target


def parallelism_of(config: Config, last_stage: str, *, is_cartesian: bool = False) -> Parallelism:
    """Return how the run's trainings are spread.

    Args:
        config: Of the run.
        last_stage: Where it stops.
        is_cartesian: Whether its models live in Cartesian coordinates.

    Raises: InputError: the strategy cannot train a model that the run comes to.
    """
    cluster = config.cluster
    parallelism = Parallelism(
        strategy=cluster.strategy,
        zero_stage=cluster.zero_stage,
        accumulation_steps=cluster.accumulation_steps,
    )
    trainings: dict[str, tuple[ModelConfig, Callable[[], nn.Module]]] = {
        "train_emulator": (config.emulator, partial(build_flow_matching, config.emulator, 1, 1)),
        "train_energy": (config.energy, partial(build_energy_matching, config.energy, 1, 1)),
    }
    if is_cartesian:
        field, two_atoms = config.transferable, [[1.0], [1.0]]
        trainings = {
            "train_emulator": (field, partial(build_molecular_matching, field, [two_atoms])),
            "train_energy": (
                config.energy,
                partial(build_energy_matching, config.energy, 3, 0, two_atoms),
            ),
        }
    for stage in STAGE_NAMES[: STAGE_NAMES.index(last_stage) + 1]:
        if stage in trainings:
            section, build_objective = trainings[stage]
            parallelism.require_supported(build_objective, train_settings(section, config.seed))
    return parallelism


def create_executor(
    kind: Literal["ray", "local"],
    num_workers: int | None,
    parallelism: Parallelism = DATA_PARALLEL,
    *,
    min_workers: int | None = None,
    require_gpus: bool = False,
) -> Executor:
    """Return the executor of a configuration's ``cluster`` section.

    Raises: InputError: the cluster cannot be reached or is too small.
    """
    if kind == "local":
        return LocalExecutor(parallelism.accumulation_steps)
    # Ray takes seconds to import, which a run in this process should not wait for.
    from bnce_dist.distributed.executor import RayExecutor

    return RayExecutor(num_workers, parallelism, min_workers=min_workers, require_gpus=require_gpus)


def executor_of(
    config: Config, last_stage: str, output: Path, *, is_cartesian: bool = False
) -> Executor:
    """Return the executor of a run's ``cluster`` section.

    Args:
        config: Of the run.
        last_stage: Where the run stops.
        output: The folder of the run's folder, which all nodes must share.
        is_cartesian: As for `parallelism_of`.

    Raises: InputError: the cluster cannot be used, or not for the run's models, or one of its
        nodes is not fit for the run.
    """
    cluster = config.cluster
    executor = create_executor(
        cluster.executor,
        cluster.num_workers,
        parallelism_of(config, last_stage, is_cartesian=is_cartesian),
        min_workers=cluster.min_workers,
        require_gpus=cluster.require_gpus,
    )
    if cluster.executor == "ray":
        from bnce_dist.distributed.preflight import require_sound_nodes

        plan = Plan.of(config, Target.from_config(config.target), is_cartesian=is_cartesian)
        require_sound_nodes(config, output.absolute(), plan)
    return executor


def run_molecule(
    config: Config,
    folder: RunFolder,
    executor: Executor,
    *,
    last_stage: str,
    resume: bool = False,
    recipe: Recipe = PER_MOLECULE,
) -> dict[str, Any] | None:
    """Run the pipeline of one molecule with its tracking and its figures.

    Args:
        config: Of the run.
        folder: Of the run; work that is finished there is not repeated.
        executor: Does the work.
        last_stage: Where to stop.
        resume: Whether the folder may hold a run of another configuration.
        recipe: The stages.

    Returns: The content of ``metrics.json``; nothing if the last stage of all was not reached.
    Raises: InputError: as `check_run`, or a tracking store that does not answer.
    """
    target = check_run(config, folder, resume=resume, recipe=recipe)
    with folder.lock():
        params = config.model_dump(mode="json", exclude={"cluster", "tracking"})
        with tracked(config.tracking, folder.path, params) as tracker:
            metrics = Pipeline(config, target, folder, executor, tracker, recipe).run(last_stage)
            if metrics is not None:
                BoltzmannGenerator.load(folder.path).save(folder.path / FILE_NAME)
                _record(config, target, folder, tracker, metrics)
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
    params = config.model_dump(mode="json", exclude={"cluster", "tracking", "target"})
    with tracked(config.tracking, folder, params) as tracker:
        yield tracker


def write_fleet(outcomes: Sequence[Outcome], folder: Path, tracker: Tracker) -> None:
    """Leave the table, the figure and the report of a fleet in its folder and record them."""
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
        known = PUBLISHED_MD_DELTA_F_KT
        published = {o.name: known[o.sequence] for o in outcomes if o.sequence in known}
        save_figure(fleet_figure(finished, published), folder / "fleet.png")
        tracker.log_figure(folder / "fleet.png")
        tracker.log_artifact(_write_fleet_report(folder, record["molecules"]))


def write_report(folder: Path) -> Path:
    """Draw the figures of a finished run again and write its HTML report.

    Args:
        folder: Of the run, or of a fleet, whose members' reports are left as they are.

    Returns: The report's path.
    Raises: InputError: no finished run or fleet is there.
    """
    if (folder / "fleet.json").exists():
        return _write_fleet_report(folder, read_json(folder / "fleet.json")["molecules"])
    metrics = read_json(folder / "metrics.json")
    if "verdict" not in metrics:
        raise InputError(
            f"metrics of {folder}",
            expected="those of this version",
            got="older ones, without a verdict",
            remedy="run the command of the run again, which computes them anew",
        )
    run = RunFolder(folder)
    config = load_config(run.config_path)
    report_run(config, Target.from_config(config.target), run, metrics)
    return folder / REPORT_NAME


def report_run(
    config: Config, target: Target, folder: RunFolder, metrics: Mapping[str, Any]
) -> list[Path]:
    """Draw the figures of a finished run, write its HTML report, and return the figures."""
    from bnce_dist.report.conformations import basins, structures
    from bnce_dist.report.figures import write_figures
    from bnce_dist.report.html import RunReport, write_run_report
    from bnce_dist.report.results import RunResults

    results = RunResults(**load_figure_data(folder, config, target, metrics))
    figures = write_figures(folder.path / "figures", results)
    chosen = basins(results.phi, results.psi, results.log_weights)
    positions = load_positions(folder, [basin.sample for basin in chosen])
    report = RunReport(
        name=folder.path.name,
        molecule=target.molecule.name,
        metrics=metrics,
        settings=dotted_values(config),
        figures=figures,
        structures=structures(target.molecule, results, chosen, positions),
    )
    write_run_report(folder.path / REPORT_NAME, report)
    return figures


def _write_fleet_report(folder: Path, molecules: Mapping[str, Mapping[str, Any]]) -> Path:
    from bnce_dist.report.html import write_fleet_report

    failures = {name: run["error"] for name, run in molecules.items() if "error" in run}
    finished = {name: run for name, run in molecules.items() if name not in failures}
    return write_fleet_report(folder / REPORT_NAME, finished, failures, folder / "fleet.png")


def _record(
    config: Config, target: Target, folder: RunFolder, tracker: Tracker, metrics: dict[str, Any]
) -> None:
    """Compare the run with the one before, draw the figures and record everything."""
    model_name = target.molecule.name.lower()
    quality = Quality.of(folder.path.name, metrics)
    metrics |= _comparison(quality, tracker.predecessor(model_name))
    write_json(folder.path / "metrics.json", metrics)
    for figure in report_run(config, target, folder, metrics):
        tracker.log_figure(figure)
    tracker.log_artifact(folder.path / REPORT_NAME)
    tracker.log_artifact(folder.path / "metrics.json")
    tracker.log_metrics({k: float(v) for k, v in metrics.items() if isinstance(v, int | float)})
    tracker.set_tags({"verdict": Verdict.from_record(metrics["verdict"]).lines()[0]})
    example_nm = target.molecule.positions_nm[None]
    tracker.log_generator(model_name, folder.path / FILE_NAME, example_nm, quality)


def _comparison(quality: Quality, predecessor: Quality | None) -> dict[str, Any]:
    """Return what ``metrics.json`` says about the model that was registered before."""
    if predecessor is None:
        return {}
    return {
        "predecessor": asdict(predecessor),
        "delta_f_error_change_kT": quality.delta_f_error_kT - predecessor.delta_f_error_kT,
        "ess_fraction_change": quality.ess_fraction - predecessor.ess_fraction,
    }
