import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlflow.tracking")
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking import mlflow_store, mlflow_tracker, pyfunc
from bnce_dist.tracking.mlflow_tracker import MlflowTracker, flush
from bnce_dist.tracking.tracker import Quality


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", *mlflow_store.MLFLOW_SETTINGS):
        monkeypatch.delenv(name, raising=False)
    # `connect` sets the limits for the process; monkeypatch takes them back.
    for name, value in mlflow_store.MLFLOW_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setattr(mlflow_tracker, "SEND_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(mlflow_tracker, "FIRST_PAUSE_SECONDS", 0.5)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def output(tmp_path: Path, empty_store: Path) -> Path:
    """An output folder whose local store exists already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


class Server:
    """A tracking server on a loopback port that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "server.db"
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = [
            f"--backend-store-uri=sqlite:///{self.database}",
            f"--artifacts-destination={self.folder / 'artifacts'}",
        ]
        address = ["--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *address, *store],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 240
        while not self.answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def hang(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        if self.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_store, server.database)
    yield server
    server.kill()


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that answers, whatever the test before did to it."""
    if not shared_server.is_alive():
        shared_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared_server.uri)
    # On a busy machine a server that is alive may take long; one that hangs is not waited for.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    return shared_server


def runs(uri: str) -> dict[str, Run]:
    """Return all runs by name; fails on two runs of one name."""
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("bnce_dist").experiment_id])
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found)
    return by_name


def history(uri: str, run: Run, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient(uri).get_metric_history(run.info.run_id, key)]


def test_the_default_store_is_a_database_beside_the_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "adp"
    tracker = MlflowTracker(folder)
    tracker.start_run("adp", {"seed": 1, "energy": {"width": 256}}, {"commit": "abc"})
    checkpoint = folder / "energy.pt"
    checkpoint.write_bytes(b"weights")
    with tracker.stage("train_energy", {"num_steps": 5}):
        for step in range(5):
            tracker.log_metrics({"loss": 1.0 / (1 + step)}, step=step)
        tracker.log_model("energy", checkpoint)
    tracker.log_metrics({"delta_f_kT": 3.9, "pareto_k": float("nan")})
    tracker.set_tags({"verdict": "reliable"})
    tracker.finish()
    assert tracker.unsent == 0

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = runs(uri)
    parent, child = found["adp"], found["train_energy"]
    assert parent.data.params == {"seed": "1", "energy.width": "256"}
    assert parent.data.tags["commit"] == "abc"
    assert parent.data.tags["verdict"] == "reliable"
    assert parent.data.metrics["delta_f_kT"] == 3.9
    assert parent.info.status == child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"num_steps": "5"}
    assert history(uri, child, "loss") == [(step, 1.0 / (1 + step)) for step in range(5)]
    stored = tmp_path / "mlflow_artifacts" / child.info.run_id / "artifacts/models/energy/energy.pt"
    assert stored.read_bytes() == b"weights"


def test_a_restarted_pipeline_continues_its_runs_and_sends_what_was_left(output: Path) -> None:
    folder = output / "adp"
    killed = MlflowTracker(folder)
    killed.start_run("adp", {"seed": 1})
    killed.log_metrics({"loss": 1.0}, step=0)
    killed._finished.set()  # The thread ends like that of a killed process: nothing more is sent.
    killed._thread.join()
    killed.log_metrics({"loss": 0.5}, step=1)

    again = MlflowTracker(folder)
    again.start_run("adp", {"seed": 1})
    again.log_metrics({"loss": 0.5}, step=1)
    again.log_metrics({"loss": 0.25}, step=2)
    again.finish()
    uri = f"sqlite:///{output / 'mlflow.db'}"
    (run,) = runs(uri).values()
    assert run.info.status == "FINISHED"
    assert history(uri, run, "loss") == [(0, 1.0), (1, 0.5), (2, 0.25)]


def test_sending_everything_a_second_time_changes_nothing(output: Path) -> None:
    """The state file is the only memory of what was sent; the store must survive its loss."""
    folder = output / "adp"
    tracker = MlflowTracker(folder)
    tracker.start_run("adp", {f"p{i}": i for i in range(150)})
    with tracker.stage("train_energy"):
        for step in range(1200):
            tracker.log_metrics({"loss": step}, step=step)
    tracker.finish()
    (folder / "tracking_state.json").unlink()
    assert flush(folder) == 1200 + 4
    assert flush(folder) == 0
    uri = f"sqlite:///{output / 'mlflow.db'}"
    found = runs(uri)
    assert set(found) == {"adp", "train_energy"}
    assert len(found["adp"].data.params) == 150
    assert history(uri, found["train_energy"], "loss") == [(s, s) for s in range(1200)]


def test_a_record_the_store_refuses_does_not_hold_up_the_rest(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = output / "adp"
    tracker = MlflowTracker(folder)
    tracker.start_run("adp", {})
    tracker.log_metrics({"not a name = ": 1.0})
    tracker.log_artifact(folder / "never_written.png")
    tracker.log_metrics({"delta_f_kT": 3.9}, step=1)
    # A separate request, so that the good metric is not refused with the bad one.
    with tracker.stage("evaluate"):
        pass
    tracker.finish()
    assert tracker.unsent == 0
    assert "refused 1 record" in caplog.text
    assert "never_written.png is gone" in caplog.text
    parent = runs(f"sqlite:///{output / 'mlflow.db'}")["adp"]
    assert parent.data.metrics == {"delta_f_kT": 3.9}


class SlowUploads:
    """Uploads of models that take a second from their first file to their last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.num_incomplete = threading.Event(), 0
        monkeypatch.setattr(MlflowClient, "log_artifacts", self)
        monkeypatch.setattr(pyfunc, "write_served_models", self.write)

    def __call__(self, run_id: str, path: Path, folder: str) -> None:
        listed = list(path.iterdir())
        self.began.set()
        time.sleep(1)
        self.num_incomplete += not all(file.exists() for file in listed)

    @staticmethod
    def write(folder: Path, generator: Path, example_nm: object) -> dict[str, Path]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / f"model{time.monotonic_ns()}").touch()
        return {"": folder}


def test_a_model_is_not_written_anew_while_it_is_sent(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = SlowUploads(monkeypatch)
    quality = Quality("adp", 0.1, 0.5, reliable=True)
    tracker = MlflowTracker(output / "adp")
    tracker.start_run("adp", {})
    tracker.log_generator("ace-ala-nme", "generator.pt", [], quality)
    assert uploads.began.wait(60)
    tracker.log_generator("ace-ala-nme", "generator.pt", [], quality)
    tracker.finish()
    assert tracker.unsent == 0
    assert uploads.num_incomplete == 0


def test_a_long_upload_is_waited_for(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = SlowUploads(monkeypatch)
    monkeypatch.setattr(mlflow_tracker, "PATIENCE_SECONDS", 0.3)
    tracker = MlflowTracker(output / "adp")
    tracker.start_run("adp", {})
    tracker.log_generator(
        "ace-ala-nme", "generator.pt", [], Quality("adp", 0.1, 0.5, reliable=True)
    )
    assert uploads.began.wait(60)
    tracker.finish()
    assert tracker.unsent == 0


@pytest.mark.parametrize("credentials", ["", "user:secret@"])
def test_a_server_that_is_down_at_start_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://{credentials}127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        began = time.monotonic()
        with pytest.raises(InputError, match="Connection refused") as raised:
            MlflowTracker(tmp_path / "adp")
    assert time.monotonic() - began < 10
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_accepts_but_never_answers_is_given_up_in_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(InputError, match="timed out"):
            MlflowTracker(tmp_path / "adp")
    assert time.monotonic() - began < 10


def test_flush_wants_a_tracked_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tracking\.jsonl"):
        flush(tmp_path)


@pytest.mark.slow
def test_a_server_that_dies_and_returns_has_every_metric_once(
    tmp_path: Path,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_tracker, "FIRST_PAUSE_SECONDS", 1.0)
    tracker = MlflowTracker(tmp_path / "adp")
    tracker.start_run("adp", {"seed": 1})
    figure = tmp_path / "adp" / "losses.png"
    figure.write_bytes(b"png")
    with tracker.stage("train_energy"):
        log_steps(tracker, 0, 50)
        wait_until(lambda: tracker.unsent == 0)
        server.kill()
        longest = log_steps(tracker, 50, 100)
        tracker.log_figure(figure)
        wait_until(lambda: "MLflow is away" in caplog.text)
        server.start()
        log_steps(tracker, 100, 150)
        wait_until(lambda: tracker.unsent == 0)
    tracker.finish()
    assert longest < 1.0
    assert tracker.unsent == 0
    run = runs(server.uri)["train_energy"]
    assert history(server.uri, run, "loss") == [(step, 1.0 / (1 + step)) for step in range(150)]
    names = [f.path for f in MlflowClient(server.uri).list_artifacts(run.info.run_id, "figures")]
    assert names == ["figures/losses.png"]


@pytest.mark.slow
def test_a_server_that_stays_away_is_flushed_later(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "late"
    tracker = MlflowTracker(folder)
    tracker.start_run("late", {"seed": 1})
    log_steps(tracker, 0, 20)
    wait_until(lambda: tracker.unsent == 0)
    server.hang()
    assert log_steps(tracker, 20, 40) < 1.0
    began = time.monotonic()
    tracker.finish()
    assert time.monotonic() - began < 10
    assert tracker.unsent == 21
    server.kill()

    again = [sys.executable, "-m", "bnce_dist.tracking", str(folder)]
    failed = subprocess.run(again, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: MLflow tracking store")
    server.start()
    sent = subprocess.run(again, capture_output=True, text=True, check=True)
    assert sent.stdout == "21 records sent\n"
    run = runs(server.uri)["late"]
    assert run.info.status == "FINISHED"
    assert history(server.uri, run, "loss") == [(step, 1.0 / (1 + step)) for step in range(40)]


def log_steps(tracker: MlflowTracker, first: int, last: int) -> float:
    """Log a loss per step and return the longest time one call took [s]."""
    longest = 0.0
    for step in range(first, last):
        began = time.monotonic()
        tracker.log_metrics({"loss": 1.0 / (1 + step)}, step=step)
        longest = max(longest, time.monotonic() - began)
    return longest


def wait_until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
