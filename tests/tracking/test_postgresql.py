"""The database of a group's server (mlflow/compose.yaml), from the system's packages."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg2")
from mlflow.tracking import MlflowClient

from bnce_dist.tracking.mlflow_tracker import MlflowTracker


def program(name: str) -> str:
    """Return where a program of PostgreSQL is; Debian keeps them out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip(f"needs {name} (Debian: postgresql)")
    return found


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database, reached through a socket in a folder of its own."""
    initdb, control = program("initdb"), program("pg_ctl")
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp())
    shutil.chown(folder, user)
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        run(initdb, "--pgdata", data, "--auth=trust", "--username=mlflow", "--no-locale")
        socket = f"--unix_socket_directories={folder} --listen_addresses="
        run(control, "--pgdata", data, "--log", folder / "log", "--options", socket, "start")
        yield f"postgresql+psycopg2://mlflow@/postgres?host={folder}"
        run(control, "--pgdata", data, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_is_recorded_in_postgresql(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    tracker = MlflowTracker(tmp_path / "run", experiment="group", store=database)
    tracker.start_run("adp", {"emulator": {"width": 256}})
    with tracker.stage("train_emulator"):
        for step in range(3):
            tracker.log_metrics({"loss": 1.0 / (1 + step)}, step=step)
    tracker.log_metrics({"delta_f_kT": 3.84})
    tracker.finish()
    assert tracker.unsent == 0

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("group")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["adp"].data.params == {"emulator.width": "256"}
    assert runs["adp"].data.metrics["delta_f_kT"] == 3.84
    stage = runs["train_emulator"]
    assert stage.data.tags["mlflow.parentRunId"] == runs["adp"].info.run_id
    losses = client.get_metric_history(stage.info.run_id, "loss")
    assert [(loss.step, loss.value) for loss in losses] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
