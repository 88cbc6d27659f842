"""A sweep on a cluster: what trials share first, then the trials, then the winner."""

from functools import partial

from bnce_dist.core.space import Space
from bnce_dist.distributed.launch import create_executor, require_trainable
from bnce_dist.distributed.tune import concurrent_trials, run_trials
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.runs.molecule import tracked
from bnce_dist.runs.sweep.checks import workers_per_trial
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.jobs import JOBS, JobConfig
from bnce_dist.runs.sweep.outcome import ranked, record_outcome, track
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.progress import Progress


def run_sweep(sweep: SweepConfig, base: JobConfig, folder: SweepFolder) -> TrialResult:
    """Run the trials that have not ended and leave table, figures and winner in the folder.

    Args:
        sweep: What `resolve` returned.
        base: Settings all trials share, which it returned too.
        folder: Of the sweep; trials that ended there are not repeated.

    Returns: The best trial.
    Raises: InputError: the folder is in use or too small, the cluster can never hold a trial, or
        no trial finished.
    """
    run_folder = RunFolder(folder.path)
    run_folder.require_space(0)
    with run_folder.lock():
        concurrent_trials(sweep, base)
        params = sweep.model_dump(mode="json", include={"job", "metric", "searcher", "scheduler"})
        with tracked(sweep.tracking, folder.path, params) as tracker:
            folder.write_config(sweep)
            _run_missing(sweep, base, folder, tracker)
            return record_outcome(sweep, base, folder, tracker)


def _run_missing(
    sweep: SweepConfig, base: JobConfig, folder: SweepFolder, tracker: Tracker
) -> None:
    """Compute what trials share, then the trials that have not ended."""
    cluster = base.cluster
    if isinstance(base, Config):
        require_trainable(base, STAGE_NAMES[-1], Space(1, 1))
    together = create_executor(cluster, "local")
    JOBS[sweep.job].prepare(base, sweep.space, folder.shared, together, tracker)
    kind = "ray" if workers_per_trial(base) else "local"
    alone = partial(create_executor, cluster.model_copy(update={"executor": kind}))
    results = folder.results
    for result in results:  # a driver that was killed may have recorded them on disk alone
        track(folder.trial(int(result.name)), tracker)
    with Progress("trials", total=sweep.num_trials, unit="trial", done=len(results)) as progress:

        def on_end(result: TrialResult) -> None:
            track(folder.trial(int(result.name)), tracker)
            results.append(result)
            best = ranked(results, sweep)[0].metric
            progress.update(len(results), note="" if best is None else f"best {best:.4g}")

        run_trials(sweep, base, folder, alone, on_end)
