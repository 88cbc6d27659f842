"""Sweeps with Ray Tune: many trials at once, stopped early or bred.

The sweep's folder holds the truth, Tune is only the engine: a driver that was killed is
continued by a new Tune run over the trials that have not ended, each from its own checkpoint.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from bnce_dist.config.load import with_values
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import seed_from
from bnce_dist.distributed.cluster import (
    available_workers,
    ensure_ray,
    num_gpus,
    owned_devices,
    require_workers,
    waited_for,
)
from bnce_dist.distributed.waiting import Waiting
from bnce_dist.pipeline.cluster import WorkerResources
from bnce_dist.pipeline.executor import Executor
from bnce_dist.runs.sweep.checks import workers_per_trial
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.jobs import JOBS, JobConfig
from bnce_dist.runs.sweep.space import Dimension, corners, random_point
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.training.task import Record

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # silent at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a configuration are relative to the driver's folder
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends a sweep like every other job
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report says how a trial ended
}
# How long a process waits for the trial it leaves before it takes the next one; Ray's default of
# two seconds ends that next trial where cores are scarce. It is read in the trial's process.
PATIENCE = ("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")
RUN_NAME = "tune"
# A worker process that dies; a mistake of the user fails its trial at once.
MAX_FAILURES = 2
# All that a trial takes for itself if its work is done by Ray Train workers.
DRIVER_BYTES = 500_000_000


def run_trials(
    sweep: SweepConfig,
    base: JobConfig,
    folder: SweepFolder,
    make_executor: Callable[[], Executor],
    on_end: Callable[[TrialResult], None],
) -> None:
    """Run the trials that have not ended, as many at a time as the cluster holds.

    Args:
        sweep: Resolved and checked.
        base: Settings all trials share.
        folder: Of the sweep.
        make_executor: Makes what does a trial's work, in the trial's process; picklable.
        on_end: Called in this thread when a trial has ended and its result is on disk.

    Raises: InputError: the cluster can never hold a trial.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    num_left = sweep.num_trials - len(folder.results)
    max_concurrent = concurrent_trials(sweep, base)
    if num_left <= 0:
        return
    shutil.rmtree(folder.path / RUN_NAME, ignore_errors=True)
    random.seed(seed_from(sweep.seed, "population"))  # Tune draws perturbations from it
    searcher, param_space = _proposals(sweep, folder)
    trainable = tune.with_parameters(
        run_trial, sweep=sweep, base=base, folder=folder, make_executor=make_executor
    )
    tune.Tuner(
        tune.with_resources(trainable, _resources(base)),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            scheduler=_scheduler(sweep, base, folder),
            search_alg=searcher,
            num_samples=num_left if searcher else 1,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=lambda trial: trial.config["trial"]["name"],
            trial_dirname_creator=lambda trial: trial.config["trial"]["name"],
            # The process of a stopped trial would keep its Ray Train workers.
            reuse_actors=not workers_per_trial(base),
        ),
        run_config=tune.RunConfig(
            name=RUN_NAME,
            storage_path=str(folder.path),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_Ends(sweep, folder, on_end), _Cores(max_concurrent, base.cluster)],
            verbose=0,
        ),
    ).fit()
    shutil.rmtree(folder.path / RUN_NAME)
    if len(folder.results) < sweep.num_trials:
        raise RuntimeError(f"Tune ended before all trials of {folder.path}; see Ray's log files")


def concurrent_trials(sweep: SweepConfig, base: JobConfig) -> int:
    """Return how many trials run at a time on the cluster, which is started if need be.

    Raises: InputError: the cluster can never hold a trial.
    """
    workers = workers_per_trial(base)
    # Without the dashboard, Ray Train inside Tune does not give its workers' cores back.
    ensure_ray(dashboard=workers > 0)
    require_workers(max(workers, 1), base.cluster)
    fitting = available_workers(base.cluster) // max(workers, 1)
    return min(fitting, sweep.max_concurrent or fitting)


@owned_devices()
def run_trial(
    config: dict[str, Any],
    *,
    sweep: SweepConfig,
    base: JobConfig,
    folder: SweepFolder,
    make_executor: Callable[[], Executor],
) -> dict[str, Any]:
    """Run one trial in a process of its own; Tune may stop it at any report.

    Args:
        config: ``trial`` with its ``name`` and ``values``.
        sweep: Whose trial it is.
        base: Settings all trials share.
        folder: Of the sweep.
        make_executor: Makes what does the work.

    Returns: ``status``; ``metric`` if it finished, ``reason`` if it failed.
    """
    os.environ.setdefault(*PATIENCE)
    # Not from the config, which population-based training replaces by another trial's.
    trial = folder.trial(int(tune.get_context().get_trial_name()))
    values = config["trial"]["values"]
    trial.begin(values)
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as shared:
            trial.branch(Path(shared), values)

    def report(record: Record, checkpoint: Path) -> None:
        if sweep.scheduler != "pbt":
            tune.report(record)
            return
        with tempfile.TemporaryDirectory() as shared:
            trial.share(Path(shared), checkpoint)
            tune.report(record, checkpoint=tune.Checkpoint.from_directory(shared))

    try:
        metrics = trial.run(JOBS[sweep.job], base, folder.shared, make_executor(), report)
    except InputError as error:
        return {"status": "failed", "reason": str(error)}
    return {"status": "finished", "metric": metrics.get(sweep.metric)}


class _Ends(tune.Callback):
    """Records how trials end, in the driver."""

    def __init__(
        self, sweep: SweepConfig, folder: SweepFolder, on_end: Callable[[TrialResult], None]
    ) -> None:
        self._sweep, self._folder, self._on_end = sweep, folder, on_end

    def __getstate__(self) -> dict[str, Any]:
        """Leave trackers behind: Tune pickles its callbacks for a restart of its own."""
        return {}

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that finished, or that the scheduler stopped."""
        last = trial.last_result
        self._end(trial, last.get("status", "stopped"), last.get("reason"))

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record a trial whose process died again and again."""
        self._end(trial, "failed", str(trial.get_error()).strip().splitlines()[-1])

    def _end(self, trial: Any, status: Any, reason: str | None) -> None:
        ended = self._folder.trial(int(str(trial)))
        self._on_end(ended.end(self._sweep.metric, status, reason))


class _Cores(tune.Callback):
    """Says in the driver what trials wait for.

    Args:
        max_concurrent: Trials that run at a time.
        resources: What a trial takes.
    """

    def __init__(self, max_concurrent: int, resources: WorkerResources) -> None:
        self._max_concurrent = max_concurrent
        self._waiting = Waiting("trials", *waited_for(resources))

    def on_step_begin(self, *, trials: list[Any], **_: Any) -> None:
        """Look which trials have no process; Tune calls this many times a second."""
        status = Counter(trial.status for trial in trials)
        room = self._max_concurrent - status[Trial.RUNNING]
        self._waiting.look(min(status[Trial.PENDING], room))


def _resources(base: JobConfig) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial, and on which nodes."""
    if workers_per_trial(base):
        # No core, so that the workers find all of them free; Tune wants some resource.
        return tune.PlacementGroupFactory([{"memory": DRIVER_BYTES}])
    cluster = base.cluster
    bundle: dict[str, float] = {
        "CPU": cluster.cpus_per_worker,
        "GPU": 1 if num_gpus(cluster) else 0,
    }
    if cluster.accelerator_type is not None:
        bundle[f"accelerator_type:{cluster.accelerator_type}"] = 0.001  # as Ray asks for it
    labels = {"bundle_label_selector": [cluster.node_labels]} if cluster.node_labels else {}
    return tune.PlacementGroupFactory([bundle], **labels)


def _proposals(sweep: SweepConfig, folder: SweepFolder) -> tuple[Searcher | None, dict[str, Any]]:
    """Return who proposes the trials, or all trials that have not ended."""
    if sweep.searcher == "optuna":
        from bnce_dist.distributed.optuna_search import OptunaSearch

        return OptunaSearch(sweep, folder), {}
    configs = []
    for number in range(sweep.num_trials):
        trial = folder.trial(number)
        if trial.result is None:
            trial.begin(random_point(sweep.space, sweep.seed, number))
            configs.append({"name": trial.name, "values": trial.values})
    return None, {"trial": tune.grid_search(configs)}


def _scheduler(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> TrialScheduler | None:
    if sweep.scheduler == "asha":
        return asha_scheduler(sweep, base, folder)
    if sweep.scheduler == "pbt":
        return _population(sweep)
    return None


def asha_scheduler(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> ASHAScheduler:
    """Return the scheduler as it was when the trials that ended had reported."""
    metric, mode = sweep.judged_by
    job = JOBS[sweep.job]
    configs = (with_values(base, values) for values in corners(sweep.space))
    scheduler = ASHAScheduler(
        time_attr="step",
        metric=metric,
        mode=mode,
        max_t=max(job.energy(config).num_steps for config in configs),
        grace_period=sweep.asha.grace_steps,
        reduction_factor=sweep.asha.reduction_factor,
        stop_last_trials=False,
    )
    for trial in folder.trials:
        if trial.result is not None:
            ended = SimpleNamespace(trial_id=trial.name)
            scheduler.on_trial_add(None, ended)
            for record in trial.history:
                scheduler.on_trial_result(None, ended, record)
    return scheduler


def _population(sweep: SweepConfig) -> PopulationBasedTraining:
    metric, mode = sweep.judged_by
    rng = np.random.default_rng(seed_from(sweep.seed, "resampled"))
    mutations = {key: _mutation(dimension, rng) for key, dimension in sweep.space.items()}
    return PopulationBasedTraining(
        time_attr="step",
        metric=metric,
        mode=mode,
        perturbation_interval=sweep.pbt.interval_steps,
        quantile_fraction=sweep.pbt.quantile_fraction,
        resample_probability=sweep.pbt.resample_probability,
        hyperparam_mutations={"trial": {"values": mutations}},
        custom_explore_fn=partial(_clip, sweep.space),
        require_attrs=False,
        log_config=False,
    )


def _mutation(dimension: Dimension, rng: np.random.Generator) -> Any:
    """Return what Tune draws from: a list is moved along, a function resamples."""
    if dimension.choice is not None:
        return list(dimension.choice)
    return partial(dimension.sample, rng)


def _clip(space: dict[str, Dimension], config: dict[str, Any]) -> dict[str, Any]:
    """Put what Tune multiplied out of its bounds back onto them."""
    values = config["trial"]["values"]
    for key, dimension in space.items():
        values[key] = dimension.clip(values[key])
    return config
