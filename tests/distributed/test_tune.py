import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from mlflow.tracking import MlflowClient
from ray import cloudpickle
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.data.shards import DatasetMetadata
from bnce_dist.distributed import waiting
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.optuna_search import OptunaSearch
from bnce_dist.distributed.tune import asha_scheduler, concurrent_trials, run_trials
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.sweep.checks import resolve
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.training.optimizer import learning_rate
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import Record

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[2]
SWEEP = """
base:
  data: {num_samples: 500}
  evaluate: {cells_per_side: 20}
  energy:
    {num_steps: 400, warmup_steps: 10, checkpoint_interval: 20, width: 16, depth: 1,
     num_features: 8, num_fourier: 8, num_negatives: 8, global_batch_size: 32}
space:
  energy.learning_rate: {log_uniform: [1e-4, 1e-2]}
num_trials: 6
asha: {grace_steps: 40}
tracking: {backend: mlflow}
"""
STEPS = list(range(20, 401, 20))


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def resolved(path: Path, *overrides: str) -> tuple[SweepConfig, Any]:
    return resolve(load_config(SweepConfig, path, overrides))


def finish(folder: SweepFolder, number: int, values: dict[str, Any], history: list) -> None:
    """Leave what a trial with this history leaves."""
    trial = folder.trial(number)
    trial.begin(values)
    state = read_json(trial.folder / "trial.json") | {"history": history}
    write_json(trial.folder / "trial.json", state)
    write_json(trial.folder / "phase_1" / "metrics.json", history[-1])
    trial.end("kl_normalised", "finished")


def test_successive_halving_remembers_the_trials_that_ended(sweep_path: Path) -> None:
    sweep, base = resolved(sweep_path)
    folder = SweepFolder(sweep_path.parent / "sweep")
    for number, metric in enumerate((0.1, 0.2, 0.3, 0.4)):
        record = {"step": 40, "kl_normalised": metric}
        finish(folder, number, {"energy.learning_rate": 1e-3}, [record])
    # Of (0.1, 0.2, 0.3, 0.4) the best third is what lies below 0.2.
    for metric, decision in ((0.19, "CONTINUE"), (0.25, "STOP")):
        scheduler = asha_scheduler(sweep, base, folder)
        trial = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, trial)
        result = {"step": 40, "kl_normalised": metric}
        assert scheduler.on_trial_result(None, trial, result) == decision


class TestOptuna:
    """On a parabola whose minimum is at a learning rate of 10^-3."""

    @staticmethod
    def metric(values: dict[str, Any]) -> float:
        return (np.log10(values["energy.learning_rate"]) + 3) ** 2

    def search(self, sweep: SweepConfig, folder: SweepFolder, count: int) -> list[float]:
        searcher, metrics = OptunaSearch(sweep, folder), []
        for number in range(count):
            config = searcher.suggest(f"tune{number}")["trial"]
            metric = self.metric(config["values"])
            record = {"step": 20, "kl_normalised": metric}
            searcher.on_trial_result(f"tune{number}", record)
            searcher.on_trial_complete(f"tune{number}", {"status": "finished", "metric": metric})
            finish(folder, int(config["name"]), config["values"], [record])
            metrics.append(metric)
        return metrics

    def test_it_learns_also_from_the_trials_before_a_restart(self, sweep_path: Path) -> None:
        sweep, _ = resolved(sweep_path, "searcher=optuna")
        folder = SweepFolder(sweep_path.parent / "sweep")
        self.search(sweep, folder, 40)
        after = self.search(sweep, folder, 10)
        # Uniform draws of the exponent from [-4, -2] have a mean of 1/3 +- 0.09.
        assert np.mean(after) < 0.1
        assert [trial.name for trial in folder.trials] == [f"{n:04d}" for n in range(50)]
        rates = {trial.values["energy.learning_rate"] for trial in folder.trials}
        assert len(rates) == 50, "a restart repeats no draws"

    def test_trials_that_did_not_end_are_proposed_first(self, sweep_path: Path) -> None:
        sweep, _ = resolved(sweep_path, "searcher=optuna")
        folder = SweepFolder(sweep_path.parent / "sweep")
        killed = OptunaSearch(sweep, folder)
        before = [killed.suggest("a"), killed.suggest("b")]
        again = OptunaSearch(sweep, folder)
        assert [again.suggest("a"), again.suggest("b")] == before
        assert again.suggest("c")["trial"]["name"] == "0002"


@pytest.mark.ray
def test_a_trial_that_can_never_fit_is_refused(two_cpus: None, sweep_path: Path) -> None:
    sweep, base = resolved(sweep_path, "base.cluster={executor: ray, num_workers: 4}")
    with pytest.raises(InputError, match=r"1 to 2, what the cluster holds, got 4"):
        concurrent_trials(sweep, base)
    sweep, base = resolved(sweep_path, "base.cluster={executor: ray, num_workers: 2}")
    assert concurrent_trials(sweep, base) == 1
    sweep, base = resolved(sweep_path)
    assert concurrent_trials(sweep, base) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_trials_that_wait_for_cores_say_so(
    free_when_said: Callable[..., None],
    sweep_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
    sweep, base = resolved(sweep_path, "num_trials=2", "scheduler=none", "base.energy.num_steps=20")
    ended: list[TrialResult] = []
    free_when_said(waiting, num_lines=1)
    folder = SweepFolder(sweep_path.parent / "sweep")
    run_trials(sweep, base, folder, LocalExecutor, ended.append)
    assert [result.status for result in ended] == ["finished", "finished"]
    said = re.findall(r"trials: waiting for .*", capsys.readouterr().err)
    assert said == ["trials: waiting for 2 cores, 0 free"]


class Square:
    def __call__(self, index: int) -> dict[str, np.ndarray]:
        return {"z": np.full((1, 1), index**2, np.float32)}


def absolute(value: int, _: object) -> int:
    return abs(value)


def work_of_a_trial(folder: Path) -> tuple[list[int], np.ndarray]:
    executor = RayExecutor(1)
    metadata = DatasetMetadata("molecule-a", {"z": "1"})
    shards = executor.map_shards(Square, 2, folder, metadata=metadata, label="square")
    return executor.map_jobs(absolute, [-1, 2]), shards.load()["z"]


@pytest.mark.ray
def test_what_a_trial_starts_finds_the_cores_of_the_cluster(two_cpus: None, tmp_path: Path) -> None:
    group = placement_group([{"memory": 1e8}])  # no cores, as Tune gives a trial of many workers
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    trial = ray.remote(work_of_a_trial).options(num_cpus=0, memory=1e8, scheduling_strategy=inside)
    numbers, squares = ray.get(trial.remote(tmp_path / "shards"), timeout=120)
    remove_placement_group(group)
    assert numbers == [1, 2]
    assert squares.ravel().tolist() == [0, 1]


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_continues_better_trials_with_other_settings(
    two_cpus: None, sweep_path: Path
) -> None:
    population = ["scheduler=pbt", "pbt.interval_steps=80", "num_trials=4"]
    sweep, base = resolved(sweep_path, *population)
    folder = SweepFolder(sweep_path.parent / "sweep")
    ended: list[TrialResult] = []
    run_trials(sweep, base, folder, LocalExecutor, ended.append)
    assert sorted(result.name for result in ended) == ["0000", "0001", "0002", "0003"]
    assert {result.status for result in ended} == {"finished"}
    assert any(len(trial.schedule) > 1 for trial in folder.trials)
    for trial in folder.trials:
        assert [record["step"] for record in trial.history] == STEPS
        for record in trial.history:
            phase = [phase for phase in trial.schedule if phase.step < record["step"]][-1]
            rate = phase.values["energy.learning_rate"]
            assert 1e-4 <= rate <= 1e-2
            settings = TrainSettings(num_steps=400, warmup_steps=10, learning_rate=rate)
            expected = learning_rate(int(record["step"]) - 1, settings)
            assert record["learning_rate"] == pytest.approx(expected, rel=1e-12)


def sweep(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/sweep.py", path, "--output", path.parent, "--name", "sweep"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def histories(folder: SweepFolder) -> dict[str, list[Record]]:
    """Of the trials that have recorded something and did not end."""
    unended = [trial for trial in folder.trials if trial.result is None]
    return {trial.name: trial.history for trial in unended if trial.history}


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_sweep_is_continued_without_repeating_anything(sweep_path: Path) -> None:
    folder = SweepFolder(sweep_path.parent / "sweep")
    with sweep(sweep_path) as driver:
        while driver.poll() is None and not (len(folder.results) >= 2 and histories(folder)):
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    ended = {result.name: result for result in folder.results}
    begun = histories(folder)
    assert begun, "one was killed on the way"
    with sweep(sweep_path, "--resume") as driver:
        output, _ = driver.communicate()
    assert driver.returncode == 0, output
    results = {result.name: result for result in folder.results}
    assert sorted(results) == [f"{number:04d}" for number in range(6)]
    assert {name: results[name] for name in ended} == ended
    for name, history in begun.items():
        # Records hold timings, so they are equal only if the steps were not done again.
        assert folder.trial(int(name)).history[: len(history)] == history
    table = json.loads((folder.path / "table.json").read_text())
    assert sorted(row["name"] for row in table) == sorted(results)
    assert_final_metrics_once(folder)


def assert_final_metrics_once(folder: SweepFolder) -> None:
    client = MlflowClient(f"sqlite:///{folder.path.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("bnce_dist")
    recorded = [
        (run.info.run_name, point.value)
        for run in client.search_runs([experiment.experiment_id])
        for point in client.get_metric_history(run.info.run_id, "final_kl_normalised")
    ]
    expected = [(f"trial {result.name}", result.metric) for result in folder.results]
    assert sorted(recorded) == sorted(expected)


@pytest.mark.ray
@pytest.mark.slow
def test_trials_of_many_workers_take_turns_on_a_small_cluster(sweep_path: Path) -> None:
    arguments = ["num_trials=2", "scheduler=none", "base.cluster={executor: ray, num_workers: 2}"]
    arguments += ["base.energy.num_steps=60", "tracking.backend=none"]
    with sweep(sweep_path, *arguments) as driver:
        output, _ = driver.communicate()
    assert driver.returncode == 0, output
    results = SweepFolder(sweep_path.parent / "sweep").results
    assert [result.status for result in results] == ["finished", "finished"]
    assert [result.step for result in results] == [60, 60]
