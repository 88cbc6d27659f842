"""Addresses of MLflow stores in the forms in which people write them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlflow.tracking")
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.mlflow_store import (
    canonical,
    open_store,
    sqlite_path,
    without_credentials,
)
from bnce_dist.tracking.mlflow_tracker import MlflowTracker, flush, local_store, store_address
from bnce_dist.tracking.models import MODEL_FILE, fetch_model, list_models, register
from bnce_dist.tracking.tracker import Quality


@pytest.mark.parametrize("name", ["run#1 ü", "100%", "a%20b", "why?x=1", "a@b:1;c&d+e~"])
def test_a_store_in_a_folder_of_any_name_is_written_and_found_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name / "adp"
    tracker = MlflowTracker(folder)
    tracker.start_run("adp", {"seed": 1})
    tracker.finish()
    assert tracker.unsent == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert (tmp_path / name / "mlflow.db").exists()

    client = MlflowClient(local_store(folder))
    (run,) = client.search_runs(["1"])
    file = tmp_path / name / "mlflow_artifacts" / run.info.run_id / "artifacts" / "m" / MODEL_FILE
    file.parent.mkdir(parents=True)
    file.write_text("weights")
    register(client, "adp", run.info.run_id, "m", Quality("adp", 0.1, 0.5, reliable=True))
    assert fetch_model("models:/adp@champion", local_store(folder)).read_text() == "weights"

    if name != "a%20b":  # which in an address is "a b"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f" sqlite:///{tmp_path / name}/mlflow.db ")
        assert [model.name for model in list_models()] == ["adp"]
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setenv("HOME", str(tmp_path / name))
    for written in ("sqlite:///mlflow.db", "sqlite:///~/mlflow.db", "mlflow.db", "~/mlflow.db"):
        assert store_address(Path("/other/run"), written) == local_store(folder)


def test_a_percent_sign_is_taken_as_it_stands_where_only_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    found = sqlite_path(canonical(f"sqlite:///{tmp_path}/a%20b/mlflow.db"))
    assert found == tmp_path / "a%20b" / "mlflow.db"
    (tmp_path / "a b").mkdir()
    found = sqlite_path(canonical(f"sqlite:///{tmp_path}/a%20b/mlflow.db"))
    assert found == tmp_path / "a b" / "mlflow.db"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://host:5000/", "http://host:5000"),
        (" 'https://host/mlflow/' ", "https://host/mlflow"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("sqlite:////d/x.db?timeout=5", "sqlite:////d/x.db?timeout=5"),
        ("sqlite+pysqlite:////d/x.db", "sqlite:////d/x.db"),
        ("SQLite:////d/x.db", "sqlite:////d/x.db"),
        ("/d/x.DB", "sqlite:////d/x.DB"),
        ("postgresql+psycopg2://u:p@h/x", "postgresql+psycopg2://u:p@h/x"),
        ("databricks", "databricks"),
    ],
)
def test_one_form(written: str, meant: str) -> None:
    assert canonical(written) == meant
    assert canonical(meant) == meant


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("localhost:5000", "write http://localhost:5000"),
        ("http://", "HOST:PORT"),
        ("http://a b:5000", "HOST:PORT"),
        ("http://[::1", "HOST:PORT"),
        ("http://host:70000", "HOST:PORT"),
        ("S3://bucket/store", "expected sqlite:////path/mlflow.db, http://HOST:PORT"),
        ("s3://bucket/store", "expected sqlite:////path/mlflow.db, http://HOST:PORT"),
        ("sqlite://data/x.db", "expected sqlite:////path"),
        ("sqlite:///", "expected sqlite:////path"),
        ("sqlite:///s3://b/x.db", "begins with s3:"),
    ],
)
def test_what_is_no_address_is_one_line(written: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        canonical(written)


@pytest.mark.parametrize(
    "address",
    ["nosuchscheme://x", "mysql+nosuchdriver://h/x", "/some/folder", "http://h\u2603.invalid"],
)
def test_a_store_of_no_known_kind_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MLflow tracking store") as caught:
        MlflowTracker(tmp_path / "run", store=address)
    assert "\n" not in str(caught.value)


def test_passwords_stay_out_of_messages() -> None:
    assert without_credentials("http://me:p@ss@host:1/x@y") == "http://host:1/x@y"
    assert without_credentials("sqlite:////d/a@b/x.db") == "sqlite:////d/a@b/x.db"


def test_runs_that_begin_at_once_make_one_store_and_are_all_recorded(tmp_path: Path) -> None:
    code = (
        "import sys; from bnce_dist.tracking.mlflow_tracker import MlflowTracker\n"
        "tracker = MlflowTracker(sys.argv[1])\n"
        "tracker.start_run('one', {'seed': 1})\n"
        "tracker.finish()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / f"run{number}"])
        for number in range(3)
    ]
    for number, process in enumerate(started):
        process.wait(timeout=500)
        flush(tmp_path / f"run{number}")  # what it could not send while others wrote
    assert len(MlflowClient(local_store(tmp_path / "run0")).search_runs(["1"])) == 3


DIES_AMONG_THE_TABLES = """
import os, sys
from sqlalchemy import Engine, event
from bnce_dist.tracking.mlflow_store import open_store

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    if "_alembic_tmp_" in statement:  # a table that is being changed
        os._exit(9)

open_store(sys.argv[1])
"""


def test_a_store_whose_maker_was_killed_is_made_again(tmp_path: Path) -> None:
    address = local_store(tmp_path / "run")
    killed = subprocess.run([sys.executable, "-c", DIES_AMONG_THE_TABLES, address], check=False)
    assert killed.returncode == 9
    assert open_store(address).get_experiment("0").name == "Default"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
