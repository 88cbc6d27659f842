from pathlib import Path
from typing import Any

import pytest

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.table import markdown, run_all, run_table, summarise


def finished(
    kl_grid: float,
    *,
    objective: str = "hybrid",
    recipe: str = "ours",
    system: str = "gaussians8",
    seed: int = 0,
) -> dict[str, Any]:
    return {
        "system": system,
        "objective": objective,
        "recipe": recipe,
        "seed": seed,
        "kl_grid": kl_grid,
        "kl_normalised": 0.5,
        "log_z_error": -0.25,
        "cpu_seconds": 60.0,
        "steps": 2500,
    }


def cells(text: str, *start: str) -> list[str]:
    """Return the cells of the first row that starts so."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return next(row for row in rows if row[: len(start)] == list(start))


def test_seeds_are_averaged_with_the_deviation_of_a_sample() -> None:
    (line,) = summarise([finished(value, seed=i) for i, value in enumerate([0.1, 0.2, 0.6])])
    assert line["kl_grid"]["mean"] == pytest.approx(0.3)
    assert line["kl_grid"]["sd"] == pytest.approx(0.07**0.5)
    assert line["seeds"] == [0, 1, 2]
    assert line["published"] == 0.0150
    (alone,) = summarise([finished(0.1, system="rings")])
    assert alone["kl_grid"] == {"mean": 0.1}
    assert alone["published"] is None


def test_objectives_stand_side_by_side_under_the_published_values() -> None:
    runs = [
        finished(0.3, objective="infonce"),
        finished(0.001, seed=0),
        finished(0.003, seed=1),
        finished(0.2, system="rings"),
        finished(0.1, recipe="paper-reduced", objective="score", system="checkerboard"),
    ]
    text = markdown(summarise(runs))
    published = cells(text, "gaussians8", "published")
    assert published[2:5] == ["0.2395", "0.2199", "0.0150"]
    ours = cells(text, "gaussians8", "ours")
    assert ours[2:] == ["0.3000", "-", "0.0020 +- 0.0014", "60 / - / 60", "2500 / - / 2500"]
    assert cells(text, "checkerboard", "published")[2:5] == ["3.8478", "-", "0.1987"]
    assert "mini-batches" in text
    normalised = text.partition("log Z:")[2]
    assert cells(normalised, "rings", "ours")[4] == "0.5000, log Z -0.2500"
    with pytest.raises(StopIteration):
        cells(text, "rings", "published")


@pytest.mark.parametrize(
    ("values", "recipe", "marked"),
    [
        ([0.016, 0.017], "paper", False),  # within a quarter
        ([0.03, 0.031], "paper", True),
        ([0.005, 0.0051], "paper-reduced", True),
        ([0.01, 0.05], "paper", False),  # the seeds scatter more
        ([0.03, 0.031], "ours", False),
        ([0.03, 0.031], "paper-quick", False),
    ],
)
def test_disagreement_with_the_published_value_is_marked(
    values: list[float], recipe: str, marked: bool
) -> None:
    runs = [finished(value, recipe=recipe, seed=seed) for seed, value in enumerate(values)]
    text = markdown(summarise(runs))
    assert cells(text, "gaussians8", recipe)[4].endswith("*") is marked
    assert ("not the published value" in text) is marked


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    settings = [
        "data.num_samples=500",
        "energy.num_steps=4",
        "energy.warmup_steps=1",
        "energy.width=8",
        "energy.global_batch_size=32",
    ]
    configs = [
        load_config(PlanarConfig, None, [*settings, f"energy.learning_rate={rate}"])
        for rate in ("1e30", "1e-3")
    ]
    diverging, good = (
        config.model_copy(update={"seed": seed}) for seed, config in enumerate(configs)
    )
    failed, succeeded = run_all([diverging, good], tmp_path, LocalExecutor())
    assert failed.metrics is None
    assert "finite" in failed.error
    assert failed.folder == tmp_path / diverging.name
    assert succeeded.metrics is not None
    assert succeeded.metrics["steps"] == 4


def test_runs_of_another_table_are_in_the_way_whatever_its_name_is(tmp_path: Path) -> None:
    config = load_config(PlanarConfig, None, [])
    other = load_config(PlanarConfig, None, ["energy.num_steps=500"])
    RunFolder(tmp_path / config.name).write_config(other)
    with pytest.raises(InputError, match=r"; choose another --output$"):
        run_table([config], tmp_path / "table", LocalExecutor())
