"""The command line of the planar systems, in this process and without Ray."""

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from bnce_dist.cli.planar import RECIPES, app
from bnce_dist.data.atomic import read_json
from bnce_dist.pipeline.cluster import ClusterConfig
from bnce_dist.runs.planar.config import PlanarConfig

SMALL = (
    "data.num_samples=2000",
    "energy.num_steps=40",
    "energy.warmup_steps=4",
    "energy.width=16",
    "energy.depth=1",
    "energy.global_batch_size=64",
    "energy.num_negatives=8",
    "evaluate.cells_per_side=40",
    "cluster.executor=local",
)
PROMISED = {
    "system",
    "objective",
    "recipe",
    "seed",
    "kl_grid",
    "kl_normalised",
    "log_z_error",
    "cpu_seconds",
    "steps",
}


def planar(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [os.fspath(part) for part in arguments])


def test_one_run_ends_with_one_line_of_json(tmp_path: Path) -> None:
    command = ("--system", "checkerboard", "--objective", "score", "--seed", "3", "--json", *SMALL)
    result = planar("--output", tmp_path, "tracking.backend=jsonl", *command)
    assert result.exit_code == 0, result.output
    *_, last = result.stdout.splitlines()
    metrics = json.loads(last)
    assert metrics.keys() >= PROMISED
    assert (metrics["system"], metrics["objective"]) == ("checkerboard", "score")
    assert (metrics["recipe"], metrics["seed"]) == ("ours", 3)
    assert sum(line.startswith("{") for line in result.stdout.splitlines()) == 1
    folder = tmp_path / "checkerboard-score-ours-seed3"
    assert (folder / "densities.png").stat().st_size > 1000
    recorded = (folder / "tracking.jsonl").read_text()
    assert '"kl_grid"' in recorded
    assert '"cpu_seconds"' in recorded


def test_a_table_of_all_objectives_is_not_made_twice(tmp_path: Path) -> None:
    command = ("--table", "--seeds", "2", "--system", "gaussians8", "--recipe", "ours", "--json")
    result = planar("--output", tmp_path, *command, *SMALL)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "table"
    content = json.loads(result.stdout.splitlines()[-1])
    assert content == read_json(folder / "table.json")
    assert len(content["runs"]) == 6
    assert [line["objective"] for line in content["lines"]] == ["infonce", "score", "hybrid"]
    assert (folder / "table.md").read_text() in result.stdout
    assert (folder / "densities.png").stat().st_size > 1000

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/training/*")}
    assert len(trained) == 6
    assert planar("--output", tmp_path, *command, *SMALL).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/training/*")} == trained


def test_a_failing_run_is_reported_beside_the_table(tmp_path: Path) -> None:
    command = ("--table", "--system", "gaussians8", "--recipe", "ours", "--objective", "hybrid")
    result = planar("--output", tmp_path, *command, *SMALL, "energy.learning_rate=1e30")
    assert result.exit_code == 1
    assert "failed: gaussians8-hybrid-ours-seed0: " in result.stderr


def test_a_dry_run_prints_every_configuration_and_writes_nothing(tmp_path: Path) -> None:
    result = planar("--table", "--quick", "--dry-run", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    configs = [PlanarConfig.model_validate(one) for one in yaml.safe_load_all(result.stdout)]
    systems = {(one.system, one.recipe) for one in configs}
    assert len(configs) == 3 * len(systems) == 18
    assert "--json with --dry-run" in planar("--dry-run", "--json").stderr
    ours = {system for system, recipe in systems if recipe == "ours-quick"}
    paper = {system for system, recipe in systems if recipe == "paper-reduced-quick"}
    assert len(ours) == 4
    assert paper == {"gaussians8", "checkerboard"}
    assert list(tmp_path.iterdir()) == []


def test_without_the_files_of_a_checkout_our_recipe_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in RECIPES.items():
        if file:
            monkeypatch.setitem(RECIPES, name, tmp_path / file.name)
    result = planar("--dry-run")
    assert result.exit_code == 0, result.output
    for command in (("--recipe", "paper-reduced"), ("--table",)):
        result = planar("--dry-run", *command)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert "jobs/configs/planar_paper_reduced.yaml of a checkout, or --recipe ours" in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--system", "gausians8"], ["gausians8", "nearest is gaussians8"]),
        (["--objective", "hybird"], ["hybird", "nearest is hybrid"]),
        (["--recipe", "papper"], ["papper", "nearest is paper"]),
        (["energy.num_negativs=4"], ["energy.num_negatives"]),
        (["data.num_samples=0"], ["data.num_samples", "greater than or equal to 1"]),
        (["energy.score_weight=0.0", "energy.infonce_weight=0.0"], ["one of the two weights"]),
        (["--objective", "score", "energy.score_weight=0"], ["energy.score_weight above 0"]),
        (["--recipe", "ours", "--config", "mine.yaml"], ["--recipe and --config"]),
        (["--config", "absent.yaml"], ["absent.yaml"]),
        (["--seed", "0", "--seed", "1"], ["--table"]),
        (["--seeds", "3"], ["--table"]),
        (["--table", "--seeds", "0"], ["--seeds at least 1"]),
        (["--table", "--seed", "0", "--seeds", "3"], ["--seed and --seeds"]),
        (["--table", "seed=3"], ["--seed"]),
        (["--seed", "3", "seed=4"], ["--seed", "seed="]),
        (["--table", "tracking.backend=jsonl"], ["jobs/sweep.py"]),
        (["--name", "a/b"], ["--output"]),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    result = planar("--output", tmp_path, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in ("expected", "got", *parts):
        assert part in line
    assert list(tmp_path.iterdir()) == []


class Refused(Exception):
    """What was asked for is known."""


@pytest.mark.parametrize("table", [(), ("--table",)])
def test_gpus_are_required_of_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: tuple[str, ...]
) -> None:
    asked = []

    def create(cluster: ClusterConfig, *_: object) -> None:
        asked.append(cluster.require_gpus)
        raise Refused

    monkeypatch.setattr("bnce_dist.cli.planar.create_executor", create)
    result = planar("--output", tmp_path, *table, "cluster.require_gpus=true")
    assert isinstance(result.exception, Refused)
    assert asked == [True]
