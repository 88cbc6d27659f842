"""What a finished run registered answers requests, in this process and behind MLflow's server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlflow.pyfunc")
import mlflow.pyfunc
import pandas as pd

from bnce_dist.core.errors import InputError
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.tracking.mlflow_tracker import MlflowTracker, local_store
from bnce_dist.tracking.models import fetch_model, find_model, list_models
from bnce_dist.tracking.pyfunc import RefusedRequest
from bnce_dist.tracking.tracker import Quality

Answer = tuple[int, dict[str, Any]]
Post = Callable[[str], Answer]
START_SECONDS = 180


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> BoltzmannGenerator:
    return BoltzmannGenerator.load(finished_run)


@pytest.fixture(scope="module")
def tracked_run(
    finished_run: Path, generator: BoltzmannGenerator, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that recorded its generator in a new MLflow store."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    folder.mkdir()
    path = folder / "generator.pt"
    shutil.copy(finished_run / "generator.pt", path)
    tracker = MlflowTracker(folder, store=local_store(folder))
    tracker.start_run("done", {})
    name, quality = generator.molecule.name.lower(), Quality.of("done", generator.metrics)
    assert tracker.predecessor(name) is None
    tracker.log_generator(name, path, generator.molecule.positions_nm[None], quality)
    tracker.finish()
    return folder


@pytest.fixture(scope="module")
def positions(generator: BoltzmannGenerator) -> np.ndarray:
    ensemble = generator.sample(40, seed=5, progress=False)
    return ensemble.positions_nm[np.isfinite(ensemble.log_weights)][:4]


@pytest.fixture(scope="module")
def post(tracked_run: Path) -> Iterator[Post]:
    """Sends a body to ``mlflow models serve``, which knows the model by its name alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", "models:/ace-ala-nme/1", "--port", str(port)]
    # As in an activated environment: MLflow calls uvicorn by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    store = local_store(tracked_run)
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": store}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def send(body: str) -> Answer:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/invocations", body.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    try:
        _wait_for(f"{address}/health", server)
        yield send
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError("the server did not start")


def test_a_run_registers_its_generator(tracked_run: Path) -> None:
    store = local_store(tracked_run)
    assert [(model.name, model.version) for model in list_models(store)] == [
        ("ace-ala-nme", 1),
        ("ace-ala-nme-sampler", 1),
    ]
    fetched = fetch_model("models:/ace-ala-nme/latest", store)
    assert fetched.read_bytes() == (tracked_run / "generator.pt").read_bytes()
    # So short a training gives nothing to rely on.
    with pytest.raises(InputError, match=r"got none of that name"):
        find_model("models:/ace-ala-nme@champion", store)


@pytest.mark.slow
def test_the_server_weighs_positions_and_refuses_with_one_line(
    post: Post, positions: np.ndarray, generator: BoltzmannGenerator
) -> None:
    status, answer = post(json.dumps({"inputs": positions.tolist()}))
    assert status == 200
    reweighted = answer["predictions"]
    np.testing.assert_allclose(reweighted["log_density"], generator.log_density(positions))
    np.testing.assert_allclose(
        reweighted["reduced_potential"], generator.reduced_potential(positions)
    )
    np.testing.assert_allclose(reweighted["log_weight"], generator.log_weights(positions))

    mirrored = json.dumps({"inputs": (positions * [-1, 1, 1]).tolist()})
    assert post(mirrored)[1]["predictions"]["log_weight"] == [None] * len(positions)

    holed = positions.copy()
    holed[0, 3, 1] = np.nan
    for wrong, line in (
        (positions[:, 1:], "expected shape (batch, 22, 3)"),
        (holed, "expected finite numbers"),
        (10 * positions, "which are angstrom; divide by 10"),
    ):
        status, answer = post(json.dumps({"inputs": wrong.tolist()}))
        assert status == 400
        assert line in answer["message"]
        assert "\n" not in answer["message"]


def test_the_sampler_draws_what_the_generator_draws(
    tracked_run: Path, generator: BoltzmannGenerator
) -> None:
    sampler = mlflow.pyfunc.load_model(str(tracked_run / "served" / "sample"))
    drawn = sampler.predict(pd.DataFrame({"num_samples": [5], "seed": [7]}))
    expected = generator.sample(5, seed=7, progress=False)
    np.testing.assert_array_equal(drawn["positions_nm"], expected.positions_nm)
    np.testing.assert_array_equal(drawn["log_density"], expected.log_density)
    for num_samples in (0, 10**9):
        with pytest.raises(RefusedRequest, match="num_samples: expected 1 to"):
            sampler.predict(pd.DataFrame({"num_samples": [num_samples], "seed": [7]}))


def test_served_models_hold_no_code(tracked_run: Path) -> None:
    files = {path.suffix for path in (tracked_run / "served").rglob("*") if path.is_file()}
    assert files <= {"", ".pt", ".yaml", ".json", ".txt"}
