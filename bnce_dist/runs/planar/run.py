"""One run: exact samples, a training, and the learned density against the true one."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bnce_dist.core.random import generator
from bnce_dist.core.systems import system_from_name
from bnce_dist.data.atomic import atomic_path, read_json, require_writable, write_json
from bnce_dist.generator.architectures import build_energy_matching, build_energy_model
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.artifact import Artifact, digest_of
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.provenance import commit, versions
from bnce_dist.runs.molecule import tracked
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.density import PLANE, grid_metrics
from bnce_dist.runs.planar.figure import FIGURE, write_figure
from bnce_dist.training.task import Record, TrainingMetadata, TrainingTask

OTHER_RUN_REMEDY = "choose another --name or --output"


def run_planar(
    config: PlanarConfig,
    folder: Path,
    executor: Executor,
    *,
    report: Callable[[Record], None] | None = None,
) -> dict[str, Any]:
    """Train one energy model and judge it; what the folder holds already is not repeated.

    Args:
        config: Of the run.
        folder: Of the run, absolute; a training interrupted there goes on.
        executor: Does the training.
        report: Called with every record of the training, which at a checkpoint (then already
            in the folder) also holds what `grid_metrics` returns.

    Returns: The content of ``metrics.json``: what `grid_metrics` returns at the end;
        ``cpu_seconds`` of all processes, to draw the samples and to train; ``steps``; and where
        it comes from.
    Raises: InputError: the folder holds another run, cannot be written, or training diverges.
    """
    run = RunFolder(folder)
    run.require_same_run(config, OTHER_RUN_REMEDY)
    if (finished := _finished(run)) is not None:
        return finished
    require_writable(folder)
    with run.lock():
        return _run(config, run, executor, report)


def run_tracked(config: PlanarConfig, folder: Path, executor: Executor) -> dict[str, Any]:
    """Do what `run_planar` does, with its tracking and its figure.

    Args:
        config: Of the run.
        folder: Of the run, absolute.
        executor: Does the training.

    Returns: The content of ``metrics.json``.
    Raises: InputError: as for `run_planar`, or the tracking store does not answer.
    """
    run = RunFolder(folder)
    run.require_same_run(config, OTHER_RUN_REMEDY)
    is_complete = config.tracking.backend == "none" and (folder / FIGURE).exists()
    if is_complete and (finished := _finished(run)) is not None:
        return finished
    params = config.model_dump(mode="json", exclude={"cluster", "tracking"})
    require_writable(folder)
    # One that is refused must not record an end of the run that is at work.
    with run.lock(), tracked(config.tracking, folder, params) as tracker:

        def report(record: Record) -> None:
            metrics = {key: value for key, value in record.items() if key != "step"}
            tracker.log_metrics(metrics, step=int(record["step"]))

        metrics = _run(config, run, executor, report)
        if not (folder / FIGURE).exists():
            write_figure([(config, folder, metrics)], folder)
        tracker.log_figure(folder / FIGURE)
        tracker.log_metrics({k: v for k, v in metrics.items() if isinstance(v, float)})
    return metrics


def _finished(run: RunFolder) -> dict[str, Any] | None:
    path = run.path / "metrics.json"
    return read_json(path) if path.exists() else None


def _run(
    config: PlanarConfig,
    run: RunFolder,
    executor: Executor,
    report: Callable[[Record], None] | None,
) -> dict[str, Any]:
    """Do what `run_planar` does in a folder that is locked."""
    # Another one may have begun there before it was.
    run.require_same_run(config, OTHER_RUN_REMEDY)
    if (finished := _finished(run)) is not None:
        return finished
    run.write_config(config)
    data = _draw_samples(config, run)
    result = executor.fit(
        _task(config, data.folder / "samples.npy"), run.path / "training", report=report
    )
    cpu_seconds = data.provenance["cpu_seconds"]
    cpu_seconds += sum(record["cpu_seconds"] for record in result.history)
    metrics = _metrics(config, result.history[-1], cpu_seconds)
    write_json(run.path / "metrics.json", metrics)
    shutil.rmtree(data.folder)  # the seed gives them again
    return metrics


def _draw_samples(config: PlanarConfig, run: RunFolder) -> Artifact:
    """Write ``samples.npy`` unless it is there."""
    settings = config.model_dump(mode="json", include={"seed", "system", "data"})
    artifact = Artifact(run.stage("data"), digest_of(settings))
    if artifact.is_finished():
        return artifact
    started = time.process_time()
    artifact.prepare(run.superseded)
    samples = system_from_name(config.system).sample(
        config.data.num_samples, generator(config.seed, "samples")
    )
    path = artifact.folder / "samples.npy"
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, samples.float().numpy())
    artifact.finish({"cpu_seconds": time.process_time() - started})
    return artifact


def _task(config: PlanarConfig, data_path: Path) -> TrainingTask:
    energy = config.energy_of_objective
    return TrainingTask(
        partial(build_energy_matching, energy, PLANE),
        data_path,
        energy.with_seed(config.seed),
        TrainingMetadata("energy", config.system, build_energy_model(energy, PLANE).config()),
        validate=partial(grid_metrics, config.system, config.evaluate.cells_per_side),
    )


def _metrics(config: PlanarConfig, last: Record, cpu_seconds: float) -> dict[str, Any]:
    names = ("system", "objective", "recipe", "seed")
    return {
        **{name: getattr(config, name) for name in names},
        **{name: last[name] for name in ("kl_grid", "kl_normalised", "log_z_error")},
        "cpu_seconds": cpu_seconds,
        "steps": int(last["step"]),
        "samples_per_step": config.energy.global_batch_size,
        "num_samples": config.data.num_samples,
        "commit": commit(),
        "versions": versions(),
    }
