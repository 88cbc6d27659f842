"""One molecule from its checks to its report; fleets are made of these."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bnce_dist.chem.order_parameters import require_turning
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import write_json
from bnce_dist.generator.architectures import space_of
from bnce_dist.generator.boltzmann_generator import FILE_NAME, BoltzmannGenerator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target
from bnce_dist.generator.verdict import Verdict
from bnce_dist.pipeline.config import Config, TrackingConfig
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.plan import Plan
from bnce_dist.pipeline.provenance import commit
from bnce_dist.pipeline.results import Evaluation, load_evaluation, run_metrics
from bnce_dist.pipeline.run import PER_MOLECULE, STAGE_NAMES, Pipeline, RunKind
from bnce_dist.runs.refined import refined_kind
from bnce_dist.runs.report import REPORT_NAME, report_run
from bnce_dist.tracking.create import create_tracker
from bnce_dist.tracking.tracker import Quality, Status, Tracker


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


@dataclass(frozen=True)
class PreparedRun:
    """A run that passed every check there is before anything expensive.

    Args:
        config: Of the run.
        folder: Of the run; work that is finished there is not repeated.
        kind: Its stages.
        target: Built from ``config.target``.
        plan: Its sizes.
    """

    config: Config
    folder: RunFolder
    kind: RunKind
    target: Target
    plan: Plan


def prepare(
    config: Config, folder: RunFolder, *, resume: bool = False, kind: RunKind = PER_MOLECULE
) -> PreparedRun:
    """Build what a run needs and check everything that can be known before it starts.

    Args:
        config: Of the run.
        folder: Of the run.
        resume: Whether the folder may hold a run of another configuration.
        kind: Of the run; of one that refines another it follows from that.

    Raises: InputError: unusable settings, another run's folder, too little space, or as
        `refined_kind`.
    """
    if not resume:
        folder.require_same_run(config)
    if config.refines is not None:
        kind = refined_kind(config, folder)
    target = Target.from_config(config.target)
    space = space_of(
        target.molecule,
        is_cartesian=kind.is_cartesian,
        has_tokens=kind.has_tokens,
        features=config.transferable.feature_set,
    )
    plan = Plan.of(config, target, space)
    folder.require_space(plan.storage_bytes)
    return PreparedRun(config, folder, kind, target, plan)


def require_turning_torsions(target: Target, last_stage: str, space: Space) -> None:
    """Refuse biased torsions that the models of a run take as stiff.

    Args:
        target: Of the run.
        last_stage: Where it stops.
        space: What its models live in.

    Raises: InputError: there is such a torsion, and a model is trained.
    """
    if last_stage != STAGE_NAMES[0] and not space.is_cartesian:
        require_turning(target.molecule)


def run_molecule(
    run: PreparedRun, executor: Executor, *, last_stage: str = STAGE_NAMES[-1]
) -> dict[str, Any] | None:
    """Run the pipeline of one molecule with its tracking and its figures.

    Args:
        run: What `prepare` returned.
        executor: Does the work.
        last_stage: Where to stop.

    Returns: The content of ``metrics.json``; nothing if the last stage of all was not reached.
    Raises: InputError: the folder is in use, or the tracking store does not answer.
    """
    config, folder = run.config, run.folder
    with folder.lock():
        params = config.model_dump(mode="json", exclude={"cluster", "tracking"})
        with tracked(config.tracking, folder.path, params) as tracker:
            pipeline = Pipeline(config, run.target, folder, executor, tracker, run.kind)
            provenance = pipeline.run(last_stage)
            if provenance is None:
                return None
            evaluation = load_evaluation(folder, run.target, config.other_temperatures_kelvin)
            metrics = run_metrics(evaluation, config, run.target) | provenance
            _record(run, tracker, metrics, evaluation)
    return metrics


def with_common_store(config: Config, folder: Path) -> Config:
    """Return the configuration with its MLflow store named, for runs on other machines too."""
    if config.tracking.backend != "mlflow":
        return config
    from bnce_dist.tracking.mlflow_tracker import store_address

    tracking = config.tracking.model_copy(
        update={"store": store_address(folder, config.tracking.store)}
    )
    return config.model_copy(update={"tracking": tracking})


def _record(
    run: PreparedRun, tracker: Tracker, metrics: dict[str, Any], evaluation: Evaluation
) -> None:
    """Compare the run with the one before, write its model and figures, and record everything.

    A model is not compared and not registered if none of its samples has any weight, or if there is
    no reference to compare its free energy with.
    """
    target, folder = run.target, run.folder
    model_name = target.molecule.name.lower()
    quality = None
    if metrics["delta_f_kT"] is not None and metrics["delta_f_reference_kT"] is not None:
        quality = Quality.of(folder.path.name, metrics)
        metrics |= _comparison(quality, tracker.predecessor(model_name))
    write_json(folder.path / "metrics.json", metrics)
    BoltzmannGenerator.of_run(folder, run.config.target, target).save(folder.path / FILE_NAME)
    for figure in report_run(run.config, target, folder, metrics, evaluation):
        tracker.log_figure(figure)
    tracker.log_artifact(folder.path / REPORT_NAME)
    tracker.log_artifact(folder.path / "metrics.json")
    tracker.log_metrics({k: float(v) for k, v in metrics.items() if isinstance(v, int | float)})
    for row in metrics.get("temperatures", []):
        if row["delta_f_kT"] is not None:
            name = f"delta_f_at_{row['temperature_kelvin']:g}K_kT"
            tracker.log_metrics({name: row["delta_f_kT"]})
    tracker.set_tags({"verdict": Verdict.from_record(metrics["verdict"]).lines()[0]})
    if quality is not None:
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
