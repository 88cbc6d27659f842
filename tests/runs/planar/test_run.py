import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.core.systems import SYSTEMS
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.run import run_planar, run_tracked
from bnce_dist.training.task import Record

SMALL = [
    "data.num_samples=2000",
    "energy.num_steps=60",
    "energy.warmup_steps=10",
    "energy.width=32",
    "energy.num_fourier=8",
    "energy.num_negatives=16",
    "energy.global_batch_size=128",
    "energy.checkpoint_interval=20",
    "energy.report_interval=10",
    "evaluate.cells_per_side=40",
]


def small(*overrides: str) -> PlanarConfig:
    return load_config(PlanarConfig, None, [*SMALL, *overrides])


def test_a_run_leaves_what_is_promised_and_is_not_repeated(tmp_path: Path) -> None:
    records: list[Record] = []
    started = time.process_time()
    metrics = run_planar(small(), tmp_path / "run", LocalExecutor(), report=records.append)
    elapsed = time.process_time() - started
    assert metrics == read_json(tmp_path / "run" / "metrics.json")
    assert metrics["system"] == "gaussians8"
    assert (metrics["objective"], metrics["recipe"]) == ("hybrid", "ours")
    assert (metrics["seed"], metrics["steps"], metrics["samples_per_step"]) == (0, 60, 128)
    assert sum(record["cpu_seconds"] for record in records) < metrics["cpu_seconds"] < elapsed
    judged = {int(record["step"]): record for record in records if "kl_grid" in record}
    assert list(judged) == [20, 40, 60]
    for name in ("kl_grid", "kl_normalised", "log_z_error"):
        assert math.isfinite(metrics[name])
        assert metrics[name] == judged[60][name]

    again: list[Record] = []
    assert run_planar(small(), tmp_path / "run", LocalExecutor(), report=again.append) == metrics
    assert again == []


@pytest.mark.parametrize("run", [run_planar, run_tracked])
def test_one_that_is_refused_leaves_the_run_alone(tmp_path: Path, run: Callable[..., Any]) -> None:
    with (
        RunFolder(tmp_path).lock(),
        pytest.raises(InputError, match="one process at a time"),
    ):
        run(small("tracking.backend=jsonl"), tmp_path, LocalExecutor())
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_what_has_no_plane_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"expected one of late_fusion, concatenated, got 'dist"):
        small("energy.architecture=distance")


def test_an_objective_of_few_steps_warms_up_within_them() -> None:
    energy = small("objective=infonce", "steps.infonce=0.1").energy_of_objective
    assert energy.with_seed(0).warmup_steps < energy.num_steps == 6


def test_an_interrupted_run_goes_on_and_keeps_its_processor_time(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    seen: list[Record] = []

    def stop_at_40(record: Record) -> None:
        seen.append(record)
        if record["step"] == 40:
            raise Stopped

    with pytest.raises(Stopped):
        run_planar(small(), tmp_path / "stopped", LocalExecutor(), report=stop_at_40)
    rest: list[Record] = []
    resumed = run_planar(small(), tmp_path / "stopped", LocalExecutor(), report=rest.append)
    assert [record["step"] for record in rest] == [50, 60]
    assert resumed["cpu_seconds"] > sum(record["cpu_seconds"] for record in seen + rest)

    undisturbed = run_planar(small(), tmp_path / "undisturbed", LocalExecutor())
    assert resumed["kl_normalised"] == undisturbed["kl_normalised"]


def test_a_folder_keeps_to_one_configuration(tmp_path: Path) -> None:
    run_planar(small("energy.num_steps=20"), tmp_path, LocalExecutor())
    with pytest.raises(InputError, match=r"energy\.num_steps=20.*another --name or --output"):
        run_planar(small(), tmp_path, LocalExecutor())


def test_training_improves_on_an_ignorant_density(tmp_path: Path) -> None:
    # The uniform density on the square is at the distance log 16 - entropy of the true one.
    metrics = run_planar(small("energy.num_steps=300"), tmp_path, LocalExecutor())
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.1**2)
    assert metrics["kl_grid"] < 0.5 * (math.log(16) - entropy)


@pytest.mark.parametrize(
    ("objective", "weights", "num_steps"),
    [("hybrid", (1.0, 2.0), 100), ("score", (1.0, 0.0), 150), ("infonce", (0.0, 2.0), 300)],
)
def test_an_objective_alone_has_one_weight_and_the_steps_it_can_afford(
    objective: str, weights: tuple[float, float], num_steps: int
) -> None:
    energy = small(
        f"objective={objective}",
        "energy.num_steps=100",
        "energy.score_weight=1.0",
        "energy.infonce_weight=2.0",
        "steps.score=1.5",
        "steps.infonce=3.0",
    ).energy_of_objective
    assert (energy.score_weight, energy.infonce_weight) == weights
    assert energy.num_steps == num_steps


def test_a_shortened_run_says_so() -> None:
    config = small("energy.num_steps=80", "energy.warmup_steps=60").shortened(8)
    assert (config.energy.num_steps, config.recipe) == (10, "ours-quick")
    assert config.energy.warmup_steps < config.energy.num_steps


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_configuration(system: str) -> None:
    assert system in small(f"system={system}").name
    assert system in str(PlanarConfig.model_fields["system"].description)


def test_the_published_set_up_is_the_published_one() -> None:
    configs = Path(__file__).parents[3] / "jobs" / "configs"
    config = load_config(PlanarConfig, configs / "planar_paper.yaml")
    energy = config.energy
    assert (energy.architecture, energy.width, energy.depth) == ("concatenated", 256, 6)
    assert (energy.num_negatives, energy.negatives) == (1, "independent")
    assert energy.global_batch_size == config.data.num_samples == energy.num_steps == 10_000
    assert (energy.learning_rate, energy.schedule, energy.warmup_steps) == (1e-3, "constant", 0)
    assert (energy.gradient_clip, energy.ema_decay, energy.weight_decay) == (None, 0.0, 0.0)
    assert (energy.interpolant, energy.time_exponent) == ("trigonometric", 1.0)
    assert energy.score_weight == energy.infonce_weight == 1.0
    steps = {
        load_config(
            PlanarConfig, configs / "planar_paper.yaml", [f"objective={name}"]
        ).energy_of_objective.num_steps
        for name in ("infonce", "score", "hybrid")
    }
    assert steps == {10_000}
