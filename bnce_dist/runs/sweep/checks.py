"""What can be known to be wrong with a sweep before a trial starts."""

from collections.abc import Sequence
from pathlib import Path

from bnce_dist.config.load import load_config, with_values
from bnce_dist.core.errors import InputError
from bnce_dist.core.optional import why_not_importable
from bnce_dist.generator.folder import FREE_SECTIONS
from bnce_dist.runs.sweep.config import SweepConfig, dotted
from bnce_dist.runs.sweep.jobs import JOBS, JobConfig
from bnce_dist.runs.sweep.space import corners
from bnce_dist.training.checkpoint import SCHEDULABLE_SETTINGS
from bnce_dist.training.loop import per_rank_batch_size

# Of the energy model's objective; they are no part of a checkpoint.
_SCHEDULABLE_OBJECTIVE = ("score_weight", "infonce_weight", "num_negatives")
SCHEDULABLE = tuple(f"energy.{name}" for name in (*SCHEDULABLE_SETTINGS, *_SCHEDULABLE_OBJECTIVE))


def base_config(sweep: SweepConfig) -> JobConfig:
    """Return the job's configuration without the settings of a trial.

    Raises: InputError: an unreadable file, an unknown key or an impossible value.
    """
    path = None if sweep.config is None else Path(sweep.config)
    return with_values(load_config(JOBS[sweep.job].schema, path), dotted(sweep.base))


def workers_per_trial(base: JobConfig) -> int:
    """Return how many Ray Train workers a trial has; none if it runs in one process."""
    cluster = base.cluster
    return (cluster.num_workers or 0) if cluster.executor == "ray" else 0


def resolve(sweep: SweepConfig) -> tuple[SweepConfig, JobConfig]:
    """Check a sweep and return it with every setting of its job, which it then depends on alone.

    Returns: The sweep and the job's configuration.
    Raises: InputError: anything that would make trials fail or be pointless.
    """
    base = base_config(sweep)
    refines = getattr(base, "refines", None)
    if refines is not None:
        raise InputError(
            "refines in the job's configuration", expected="none: trials begin from nothing",
            got=refines, remedy="leave it out",
        )  # fmt: skip
    _check_space(sweep, base)
    job = JOBS[sweep.job]
    _require_known("metric", sweep.metric, job.metrics)
    if sweep.scheduler != "none":
        _check_scheduler(sweep, base)
    fault = why_not_importable("optuna") if sweep.searcher == "optuna" else None
    if fault is not None:
        raise InputError(
            "sweep key searcher",
            expected="random, or an installed optuna that works",
            got=fault,
            remedy="install it with: pip install 'bnce_dist[sweep]'",
        )
    resolved = {"config": None, "base": base.model_dump(mode="json")}
    return sweep.model_copy(update=resolved), base


def _check_space(sweep: SweepConfig, base: JobConfig) -> None:
    if not sweep.space:
        raise InputError(
            "sweep key space",
            expected="at least one setting with values to try",
            got="none",
            remedy="add one, e.g. energy.learning_rate: {log_uniform: [1e-4, 1e-2]}",
        )
    workers = max(workers_per_trial(base), 1)
    for values in corners(sweep.space):
        config = with_values(base, values)
        per_rank_batch_size(JOBS[sweep.job].energy(config).with_seed(0), workers)
    for key in sweep.space:
        if key.partition(".")[0] in FREE_SECTIONS:
            raise InputError(
                f"sweep key space.{key}",
                expected="a setting that changes results",
                got="one that changes how they are computed or recorded",
                remedy="put it under base",
            )


def _check_scheduler(sweep: SweepConfig, base: JobConfig) -> None:
    metric, _ = sweep.judged_by
    _require_known("scheduler_metric", metric, JOBS[sweep.job].records)
    key = "asha.grace_steps" if sweep.scheduler == "asha" else "pbt.interval_steps"
    steps = sweep.asha.grace_steps if sweep.scheduler == "asha" else sweep.pbt.interval_steps
    energy = JOBS[sweep.job].energy(base)
    if not energy.checkpoint_interval <= steps < energy.num_steps:
        raise InputError(
            f"sweep key {key}",
            expected=f"energy.checkpoint_interval ({energy.checkpoint_interval}) or more, "
            f"below the number of training steps ({energy.num_steps})",
            got=steps,
            remedy="change one of them; trials report at checkpoints",
        )
    if sweep.scheduler == "pbt":
        _check_population(sweep, base)


def _check_population(sweep: SweepConfig, base: JobConfig) -> None:
    for key in sweep.space:
        if key not in SCHEDULABLE:
            raise InputError(
                f"sweep key space.{key}",
                expected=f"with pbt one of {', '.join(SCHEDULABLE)}",
                got="a setting that a trained model cannot change",
                remedy="take it out of the space, or choose another scheduler",
            )
    for key, accepted, expected, got in (
        ("searcher", sweep.searcher == "random", "random with pbt", sweep.searcher),
        ("num_trials", sweep.num_trials > 1, "a population of 2 or more", sweep.num_trials),
        ("base.cluster", not workers_per_trial(base), "executor: local with pbt", "ray"),
    ):
        if not accepted:
            remedy = "change it, or choose another scheduler"
            raise InputError(f"sweep key {key}", expected=expected, got=got, remedy=remedy)


def _require_known(key: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError.unknown(f"sweep key {key}", name, known)
