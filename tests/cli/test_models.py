"""The registry from the command line: what it lists can be sampled."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("mlflow.tracking")
from mlflow.tracking import MlflowClient

from bnce_dist.cli.main import app
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.shipped import FOLDER
from bnce_dist.tracking.models import MODEL_FILE, register
from bnce_dist.tracking.tracker import Quality

SHIPPED = FOLDER / "ace-ala-nme.pt"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry that holds a copy of the shipped model."""
    folder = tmp_path_factory.mktemp("registry")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    artifacts = folder / "artifacts"
    experiment = client.create_experiment("test", artifact_location=artifacts.as_uri())
    run = client.create_run(experiment).info.run_id
    file = artifacts / run / "artifacts" / "models" / "adp" / MODEL_FILE
    file.parent.mkdir(parents=True)
    shutil.copy(SHIPPED, file)
    quality = Quality("seed7", 0.03, 0.4, True, 3.79, 3.91)
    register(client, "adp", run, "models/adp", quality)
    return f"sqlite:///{folder}/mlflow.db"


def test_models_are_listed(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = CliRunner().invoke(app, ["models", "--store", store, "--json"])
    record = json.loads(listed.stdout)
    assert record["shipped"] == ["ACE-ALA-NME"]
    (model,) = record["registered"]
    assert (model["name"], model["version"], model["aliases"]) == ("adp", 1, ["champion"])
    text = CliRunner().invoke(app, ["models", "--store", store]).stdout
    line = "run seed7, reliable, 95 % interval [3.79, 3.91] kT, error 0.03 kT, ESS 0.40"
    assert f"models:/adp/1  @champion  {line}" in text
    # Without a registry there are still those of the package.
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "ACE-ALA-NME" in CliRunner().invoke(app, ["models"]).stdout


def test_a_registered_model_is_sampled_by_its_address(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    positions = []
    for index, model in enumerate(("models:/adp@champion", str(SHIPPED))):
        output = tmp_path / f"{index}.npz"
        command = ["sample", "--model", model, "-n", "3", "-o", str(output)]
        assert CliRunner().invoke(app, command).exit_code == 0
        positions.append(np.load(output)["positions_nm"])
    np.testing.assert_array_equal(*positions)


@pytest.mark.parametrize("command", [["sample", "-o", "s.npz", "--model"], ["serve"]])
def test_an_unknown_alias_is_one_line(
    store: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    result = CliRunner().invoke(app, [*command, "models:/adp@champoin"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "models:/adp@champion" in line


def test_a_server_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(app, ["models", "--store", "http://user:secret@127.0.0.1:9"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "store http://127.0.0.1:9: expected a store that answers" in line


def test_the_card_of_the_shipped_model_quotes_its_record() -> None:
    record = read_json(Path(__file__).parents[2] / "benchmarks" / "results" / "shipped_model.json")
    card = SHIPPED.with_suffix(".md").read_text()
    for run in record["runs"]:
        low, high = run["delta_f_interval_kT"]
        assert (
            f"| {run['seed']} | {run['delta_f_kT']:.2f} +- {run['delta_f_stderr_kT']:.2f} | "
            f"{low:.2f} to {high:.2f} | {run['ess_fraction']:.3f} | {run['pareto_k']:.2f} | "
            f"{run['num_rejected']} |"
        ) in card
    assert f"{record['file_kb']:.0f} kB" in card
    assert SHIPPED.stat().st_size == round(1000 * record["file_kb"])
