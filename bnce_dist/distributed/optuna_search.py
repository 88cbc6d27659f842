"""Optuna's tree-structured Parzen estimator as a searcher of Ray Tune.

Tune has one of its own, which knows trials by random names; this one numbers them and begins
their folders, so that a sweep whose driver was killed goes on with the same trials.
"""

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from bnce_dist.core.random import seed_from
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.space import Dimension
from bnce_dist.runs.sweep.trial import Trial


class OptunaSearch(Searcher):
    """Proposes first the trials that were begun and did not end, then new ones.

    Args:
        sweep: Gives space, metric and seed.
        folder: Of the sweep; its results are what Optuna starts from.
    """

    def __init__(self, sweep: SweepConfig, folder: SweepFolder) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        trials = folder.trials
        self._metric_name, self._folder = sweep.metric, folder
        self._distributions = {key: _distribution(d) for key, d in sweep.space.items()}
        # The stream depends on where it goes on: a restart must not repeat its draws.
        sampler = optuna.samplers.TPESampler(seed=seed_from(sweep.seed, len(trials)) % 2**32)
        direction = StudyDirection.MINIMIZE if sweep.mode == "min" else StudyDirection.MAXIMIZE
        self._optuna = optuna.create_study(sampler=sampler, direction=direction)
        self._asked: dict[str, optuna.Trial] = {}
        self._num_begun = len(trials)
        self._unfinished = [trial for trial in trials if trial.result is None]
        for trial in trials:
            self._learn(trial)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial's name and settings."""
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._optuna.enqueue_trial(trial.values)
            asked = self._optuna.ask(self._distributions)
        else:
            trial = self._folder.trial(self._num_begun)
            asked = self._optuna.ask(self._distributions)
            trial.begin(asked.params)
            self._num_begun += 1
        self._asked[trial_id] = asked
        return {"trial": {"name": trial.name, "values": trial.values}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna an intermediate value, if training reports the sweep's metric."""
        if self._metric_name in result:
            self._asked[trial_id].report(result[self._metric_name], result["step"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial ended."""
        asked, result = self._asked.pop(trial_id), result or {}
        value = result.get("metric")
        if value is not None:
            self._optuna.tell(asked, value)
        elif error or "status" in result:
            self._optuna.tell(asked, state=TrialState.FAIL)
        else:
            self._optuna.tell(asked, state=TrialState.PRUNED)

    def _learn(self, trial: Trial) -> None:
        """Tell Optuna of a trial that ended before."""
        result = trial.result
        if result is None or result.metric is None:
            return
        finished = result.status == "finished"
        records = [record for record in trial.history if self._metric_name in record]
        self._optuna.add_trial(
            create_trial(
                state=TrialState.COMPLETE if finished else TrialState.PRUNED,
                value=result.metric if finished else None,
                params=result.values,
                distributions=self._distributions,
                intermediate_values={int(r["step"]): r[self._metric_name] for r in records},
            )
        )


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choice is not None:
        return CategoricalDistribution(dimension.choice)
    low, high = dimension.bounds
    if dimension.integers is not None:
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=dimension.log_uniform is not None)
