"""Sweeps without Ray: what is refused, how trials go on, and what is left."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from bnce_dist.cli.sweep import app
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.cluster import ClusterConfig
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.sweep.checks import resolve
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.jobs import JOBS, shared_stages
from bnce_dist.runs.sweep.outcome import ranked, table_lines, track, write_outcome
from bnce_dist.runs.sweep.trial import Trial, TrialResult
from bnce_dist.tracking.tracker import Tracker
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.optimizer import learning_rate
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import Record, TrainingTask

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "jobs" / "configs" / "sweeps").glob("*.yaml"))
SWEEP = """
base:
  data: {num_samples: 200}
  evaluate: {cells_per_side: 10}
  energy:
    {num_steps: 12, warmup_steps: 2, checkpoint_interval: 4, report_interval: 2, width: 8, depth: 1,
     num_features: 4, num_fourier: 4, num_negatives: 4, global_batch_size: 16}
space:
  energy.learning_rate: {log_uniform: [1e-4, 1e-2]}
  energy.score_weight: {uniform: [0.1, 2.0]}
num_trials: 2
asha: {grace_steps: 4}
"""


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def sweep(path: Path, *arguments: str) -> Result:
    command = [path, "--output", path.parent / "runs", *arguments]
    return CliRunner().invoke(app, [os.fspath(part) for part in command])


def resolved(path: Path, *overrides: str) -> tuple[SweepConfig, Any]:
    return resolve(load_config(SweepConfig, path, overrides))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_shipped_sweeps_are_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where their paths begin
    sweep, _ = resolved(path)
    assert sweep.space


def test_sections_of_the_space_may_be_nested_or_dotted(sweep_path: Path) -> None:
    nested = yaml.safe_load(SWEEP)
    bounds = {"log_uniform": [0.001, 0.01]}
    nested["space"] = {"energy": {"learning_rate": bounds}, "seed": {"choice": [1, 2]}}
    sweep_path.write_text(yaml.safe_dump(nested))
    sweep, _ = resolved(sweep_path)
    assert list(sweep.space) == ["energy.learning_rate", "seed"]
    override = "space.energy.learning_rate.log_uniform=[1e-3, 2e-3]"
    assert resolved(sweep_path, override)[0].space["energy.learning_rate"].bounds == (1e-3, 2e-3)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["space={}"], ["space", "at least one setting"]),
        (["space.energy.num_negativs.choice=[2]"], ["nearest is energy.num_negatives"]),
        (["space.energy.width.uniform=[8.5, 16.5]"], ["energy.width", "a valid integer"]),
        (["space.energy.width.integers=[0, 16]"], ["energy.width", "greater than or equal to 1"]),
        (
            ["space.energy.optimizer.choice=[adamw, sgd]"],
            ["energy.optimizer", "muon", "the nearest is adamw"],
        ),
        (["space.energy.num_steps.integers=[2, 50]"], ["warmup_steps below num_steps"]),
        (["space.energy.learning_rate.log_uniform=[1e-2, 1e-4]"], ["lower bound below the upper"]),
        (["space.energy.learning_rate.log_uniform=[0.0, 1e-4]"], ["bounds above zero"]),
        (["space.energy.learning_rate.uniform=[0.1, 0.2]", "space.seed=3"], ["space.seed"]),
        (["space.energy.width.chioce=[8, 16]"], ["space.energy.width", "one of uniform"]),
        (["space.cluster.num_workers.choice=[1, 2]"], ["changes results"]),
        (["metric=kl_normalized"], ["nearest is kl_normalised"]),
        (["scheduler_metric=kl"], ["scheduler_metric", "kl_normalised"]),
        (["job=train", "base={}", "metric=ess_fraction"], ["scheduler_metric", "score"]),
        (["base.energy.num_stesp=5"], ["nearest is energy.num_steps"]),
        (["num_trails=5"], ["nearest is num_trials"]),
        (["asha.grace_steps=50"], ["asha.grace_steps", "below the number of training steps"]),
        (["asha.grace_steps=2"], ["checkpoint_interval (4) or more"]),
        (["searcher=grid"], ["random, optuna", "got 'grid'"]),
        (["scheduler=pbt", "pbt.interval_steps=4", "space.energy.width.choice=[8, 16]"], ["width"]),
        (["scheduler=pbt", "pbt.interval_steps=4", "searcher=optuna"], ["random with pbt"]),
        (["scheduler=pbt", "pbt.interval_steps=4", "num_trials=1"], ["population of 2"]),
        (["base.cluster={executor: ray, num_workers: 3}"], ["global_batch_size", "(3)"]),
        (["config=absent.yaml"], ["absent.yaml"]),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(
    sweep_path: Path, overrides: list[str], parts: list[str]
) -> None:
    result = sweep(sweep_path, *overrides)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert not (sweep_path.parent / "runs").exists()


def test_optuna_must_be_installed(sweep_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"bnce_dist\[sweep\]"):
        resolved(sweep_path, "searcher=optuna")


def test_a_dry_run_starts_nothing(sweep_path: Path) -> None:
    result = sweep(sweep_path, "--dry-run", "num_trials=7")
    assert result.exit_code == 0, result.output
    assert "# 7 trials" in result.stdout
    assert not (sweep_path.parent / "runs").exists()


def test_a_sweep_is_resumed_on_request_and_only_with_the_same_space(sweep_path: Path) -> None:
    folder = SweepFolder(sweep_path.parent / "runs" / "sweep")
    folder.write_config(resolved(sweep_path)[0])
    assert "--resume" in sweep(sweep_path).stderr
    changed = sweep(sweep_path, "--resume", "space.energy.score_weight.uniform=[0.1, 3.0]")
    assert changed.exit_code == 2
    assert "space.energy.score_weight.uniform=[0.1, 2.0]" in changed.stderr
    changed = sweep(sweep_path, "--resume", "base.energy.num_steps=20")
    assert "base.energy.num_steps=12" in changed.stderr
    free = sweep(sweep_path, "--resume", "--dry-run", "num_trials=3", "max_concurrent=1")
    assert free.exit_code == 0, free.output


def test_stages_before_the_first_setting_searched_are_shared() -> None:
    assert shared_stages(["energy.width", "evaluate.num_samples"]) == (
        "simulate",
        "train_emulator",
        "generate",
    )
    assert shared_stages(["evaluate.num_exact"])[-1] == "train_energy"
    assert shared_stages(["target.temperature_kelvin"]) == ()
    assert shared_stages(["energy.width", "seed"]) == ()


@pytest.fixture
def run(sweep_path: Path) -> Callable[..., list[Record]]:
    """Runs a trial in this process; at the step of an interruption it raises."""
    sweep, base = resolved(sweep_path)

    def run(trial: Trial, share: Path | None = None, interrupt_at: int | None = None):
        records = []

        def report(record: Record, checkpoint: Path) -> None:
            records.append(record)
            if share is not None and record["step"] == 4:
                trial.share(share, checkpoint)
            if record["step"] == interrupt_at:
                raise KeyboardInterrupt

        trial.run(JOBS[sweep.job], base, sweep_path.parent / "shared", LocalExecutor(), report)
        return records

    return run


def test_a_number_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    class Broken(LocalExecutor):
        def fit(self, task: TrainingTask, folder: Path, *, report: Any = None) -> Any:
            report({"step": 4, "kl_grid": math.nan})

    trial = Trial(tmp_path / "0000")
    trial.begin({})
    base = PlanarConfig.model_validate(yaml.safe_load(SWEEP)["base"])
    with pytest.raises(InputError, match="kl_grid at step 4: expected a finite number, got nan"):
        trial.run(JOBS["planar"], base, tmp_path, Broken(), lambda *_: None)
    assert trial.history == []


VALUES = {"energy.learning_rate": 3e-3, "energy.score_weight": 1.0}
OTHERS = {"energy.learning_rate": 1e-3, "energy.score_weight": 0.5}


def test_a_trial_reports_checkpoints_and_goes_on_after_an_interruption(
    run: Callable[..., list[Record]], tmp_path: Path
) -> None:
    whole, broken = Trial(tmp_path / "0000"), Trial(tmp_path / "0001")
    whole.begin(VALUES)
    assert [record["step"] for record in run(whole)] == [4, 8]
    broken.begin(VALUES)
    with pytest.raises(KeyboardInterrupt):
        run(broken, interrupt_at=8)
    assert [record["step"] for record in run(broken)] == []
    assert [record["step"] for record in broken.history] == [4, 8, 12]
    for mine, other in zip(whole.history, broken.history, strict=True):
        assert (mine["loss"], mine["kl_grid"]) == (other["loss"], other["kl_grid"])
    ended = [trial.end("kl_normalised", "finished") for trial in (whole, broken)]
    assert ended[0].metric == ended[1].metric == whole.history[-1]["kl_normalised"]


def test_a_branch_continues_the_parent_with_other_settings(
    run: Callable[..., list[Record]], tmp_path: Path
) -> None:
    parent, child, shared = Trial(tmp_path / "0000"), Trial(tmp_path / "0001"), tmp_path / "shared"
    shared.mkdir()
    parent.begin(VALUES)
    run(parent, share=shared)
    child.begin(OTHERS)
    run(child)
    child.branch(shared, OTHERS)
    child.branch(shared, OTHERS)  # a restarted process repeats it
    run(child)
    assert [(phase.step, phase.parent) for phase in child.schedule] == [(0, None), (4, "0000")]
    assert [phase.values for phase in child.schedule] == [VALUES, OTHERS]
    assert child.history[0] == parent.history[0]
    for record, values in zip(child.history, (VALUES, OTHERS, OTHERS), strict=True):
        rate = values["energy.learning_rate"]
        settings = TrainSettings(num_steps=12, warmup_steps=2, learning_rate=rate)
        assert record["learning_rate"] == learning_rate(int(record["step"]) - 1, settings)
        weighted = values["energy.score_weight"] * record["score"] + 2.0 * record["infonce"]
        assert record["loss"] == pytest.approx(weighted, rel=1e-5)
    before, after = (
        load_checkpoint(path) for path in (shared / "checkpoint.pt", tmp_path / "0001/start_2.pt")
    )
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name])


def result(name: str, status: Any, metric: float | None) -> TrialResult:
    values: Any = {"energy.learning_rate": 1e-3, "energy.score_weight": float(name)}
    return TrialResult(name, status, values, metric, 12, {}, None)


def test_trials_that_ran_to_their_end_come_first_and_are_ordered_by_the_metric() -> None:
    results = [
        result("0", "finished", 0.5),
        result("1", "stopped", 0.1),
        result("2", "failed", None),
        result("3", "finished", 0.2),
        result("4", "stopped", 0.3),
    ]
    sweep = SweepConfig()
    assert [r.name for r in ranked(results, sweep)] == ["3", "0", "1", "4", "2"]
    largest = sweep.model_copy(update={"mode": "max"})
    assert [r.name for r in ranked(results, largest)] == ["0", "3", "4", "1", "2"]


def test_the_winner_is_a_configuration_of_the_job(sweep_path: Path) -> None:
    sweep, base = resolved(sweep_path)
    folder = SweepFolder(sweep_path.parent / "done")
    for number, (values, metric) in enumerate(((VALUES, 0.4), (OTHERS, 0.3))):
        trial = folder.trial(number)
        trial.begin(values)
        work = trial.folder / "phase_1"
        work.mkdir()
        (work / "metrics.json").write_text(f'{{"kl_normalised": {metric}, "system": "rings"}}')
        trial.end("kl_normalised", "finished")
        trial.end("kl_normalised", "failed", "too late")
    best = write_outcome(sweep, base, folder)
    assert (best.name, best.metric) == ("0001", 0.3)
    config = load_config(PlanarConfig, folder.path / "best.yaml")
    assert config.energy.learning_rate == OTHERS["energy.learning_rate"]
    assert config.energy.num_steps == 12
    lines = (folder.path / "table.md").read_text().splitlines()
    assert lines == list(table_lines(ranked(folder.results, sweep), sweep))
    assert [line.split()[1] for line in lines[2:]] == ["0001", "0000"]


def test_a_sweep_without_a_finished_trial_says_why(sweep_path: Path) -> None:
    sweep, base = resolved(sweep_path)
    folder = SweepFolder(sweep_path.parent / "failed")
    trial = folder.trial(0)
    trial.begin(VALUES)
    trial.end("kl_normalised", "failed", "the loss became infinite")
    with pytest.raises(InputError, match="the loss became infinite"):
        write_outcome(sweep, base, folder)
    assert "failed" in (folder.path / "table.md").read_text()


def test_tracking_a_trial_twice_records_its_final_metric_once(
    run: Callable[..., list[Record]], tmp_path: Path
) -> None:
    trial = Trial(tmp_path / "0000")
    trial.begin(VALUES)
    run(trial)
    trial.end("kl_normalised", "finished")
    for _ in range(2):
        tracker = Tracker(tmp_path)
        tracker.start_run("sweep", {})
        track(trial, tracker)
        tracker.finish()
    lines = (tmp_path / "tracking.jsonl").read_text().splitlines()
    assert sum("final_kl_normalised" in line for line in lines) == 1


def test_promised_metrics_of_the_pipeline_are_in_a_finished_run(finished_run: Path) -> None:
    metrics = yaml.safe_load((finished_run / "metrics.json").read_text())
    numbers = {name for name, value in metrics.items() if isinstance(value, int | float)}
    assert set(JOBS["train"].metrics) <= numbers
    history = yaml.safe_load((finished_run / "train_energy" / "history.json").read_text())
    assert set(JOBS["train"].records) <= history[0].keys()


def test_a_trial_of_the_pipeline_reuses_the_shared_stages(
    finished_run: Path, tmp_path: Path
) -> None:
    base = load_config(Config, finished_run / "config.yaml")
    trial = Trial(tmp_path / "0000")
    trial.begin({"evaluate.num_exact": 40})
    records = []
    for stage in ("simulate", "train_emulator", "generate", "train_energy"):
        (tmp_path / "shared" / stage).parent.mkdir(exist_ok=True)
        (tmp_path / "shared" / stage).symlink_to(finished_run / stage)
    metrics = trial.run(
        JOBS["train"], base, tmp_path / "shared", LocalExecutor(), lambda *r: records.append(r)
    )
    assert metrics["log_density_num_samples"] == 40
    assert records == [], "nothing was trained again"
    expected = yaml.safe_load((finished_run / "metrics.json").read_text())
    assert metrics["delta_f_learned_kT"] == expected["delta_f_learned_kT"]


class Refused(Exception):
    """What was asked for is known."""


def test_gpus_are_required_of_the_executor(
    sweep_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def create(cluster: ClusterConfig, *_: object) -> None:
        asked.append(cluster.require_gpus)
        raise Refused

    monkeypatch.setattr("bnce_dist.distributed.sweep.concurrent_trials", lambda *_: 1)
    monkeypatch.setattr("bnce_dist.distributed.sweep.create_executor", create)
    result = sweep(sweep_path, "tracking.backend=none", "base.cluster.require_gpus=true")
    assert isinstance(result.exception, Refused)
    assert asked == [True]
