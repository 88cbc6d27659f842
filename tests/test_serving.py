"""What a finished run registered answers requests, in this process and behind MLflow's server."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
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
import uvicorn

from bnce_dist.core.errors import InputError
from bnce_dist.core.weights import Weights
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.serving import MAX_CONFORMATIONS
from bnce_dist.tracking.mlflow_tracker import MlflowTracker, local_store
from bnce_dist.tracking.models import fetch_model, find_model, list_models
from bnce_dist.tracking.pyfunc import REQUIREMENTS, RefusedRequest
from bnce_dist.tracking.server import MAX_BODY_BYTES, application
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


def test_the_sampler_anneals_if_asked(tracked_run: Path, generator: BoltzmannGenerator) -> None:
    sampler = mlflow.pyfunc.load_model(str(tracked_run / "served" / "sample"))
    asked = pd.DataFrame({"num_samples": [60], "seed": [7]})
    drawn, annealed = sampler.predict(asked), sampler.predict(asked.assign(num_levels=6))
    before, after = (
        np.nan_to_num(np.array(one["log_weight"], dtype=float), nan=-np.inf)
        for one in (drawn, annealed)
    )
    assert Weights(after).ess > 1.1 * Weights(before).ess
    assert annealed["reduced_potential"] != drawn["reduced_potential"]
    for changes, line in (
        ({"num_levels": 0}, "num_levels: expected 1 to"),
        ({"num_levels": 6, "num_samples": 10**5}, "num_samples: expected 1 to"),
    ):
        with pytest.raises(RefusedRequest, match=line):
            sampler.predict(asked.assign(**changes))


ALONE = """
import importlib.util, json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
for place in list(sys.path):
    sys.path_importer_cache.pop(place, None)
    if importlib.util.find_spec("bnce_dist") is None:
        break
    sys.path.remove(place)
elsewhere = importlib.util.find_spec("bnce_dist")
import mlflow.pyfunc, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(numpy.load(sys.argv[2]))
import bnce_dist
print(json.dumps([elsewhere is None, bnce_dist.__file__, answer]))
"""


@pytest.mark.slow
def test_a_served_model_brings_the_package_with_it(
    tracked_run: Path, positions: np.ndarray, generator: BoltzmannGenerator, tmp_path: Path
) -> None:
    """In a process that finds no bnce_dist but the model's; an index might have a stranger's."""
    folder = tracked_run / "served" / "reweight"
    requirements = (folder / "requirements.txt").read_text()
    assert "bnce" not in requirements
    assert all("==" in line for line in requirements.splitlines())
    np.save(tmp_path / "positions.npy", positions)
    command = [sys.executable, "-c", ALONE, str(folder), str(tmp_path / "positions.npy")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found_nothing, place, answer = json.loads(done.stdout.splitlines()[-1])
    assert found_nothing
    assert Path(place).is_relative_to(folder / "code")
    np.testing.assert_array_equal(answer["log_weight"], generator.log_weights(positions))


def test_requirements_are_those_of_the_package() -> None:
    """All that its layers that are served ask for, and nothing that is somebody else's name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["chem"], *extras["tracking"]]
    names = {re.split("[<>=]", requirement)[0] for requirement in asked}
    assert names <= set(REQUIREMENTS)


Send = Callable[..., Answer]


@pytest.fixture(scope="module")
def ours(tracked_run: Path) -> Iterator[Send]:
    """Sends a body to our own server in a thread of this process."""
    model = mlflow.pyfunc.load_model(str(tracked_run / "served" / "reweight"))
    server = uvicorn.Server(uvicorn.Config(application(model), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]

    def send(body: Any, content_type: str = "application/json") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        with suppress(BrokenPipeError, ConnectionResetError):  # Refused before all was sent.
            connection.request("POST", "/invocations", body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, json.load(answer)

    yield send
    server.should_exit = True
    thread.join(30)


def test_our_server_answers_as_mlflow_does(
    ours: Send, positions: np.ndarray, generator: BoltzmannGenerator
) -> None:
    for body in ({"inputs": positions.tolist()}, {"instances": positions.tolist()}):
        status, answer = ours(json.dumps(body))
        assert status == 200
        weights = answer["predictions"]["log_weight"]
        np.testing.assert_array_equal(weights, generator.log_weights(positions))


@pytest.mark.parametrize(
    ("body", "content_type", "status", "line"),
    [
        (b"", "application/json", 400, "expected JSON"),
        (b"[" * 100_000, "application/json", 400, "expected JSON"),
        (b"\xff\xfe", "application/json", 400, "expected JSON"),
        (b"[]", "application/json", 400, ""),
        (b'{"inputs": [[1]]}', "application/json", 400, "(-1, -1, 3)"),
        (b'{"inputs": [[1], [1, 2]]}', "application/json", 400, "inputs of numbers"),
        (b'{"inputs": "text"}', "application/json", 400, "inputs of numbers"),
        (b'{"inputs": {"a": 1}}', "application/json", 400, "inputs of numbers"),
        (b'{"dataframe_split": 3}', "application/json", 400, ""),
        (b"phi,psi", "text/csv", 400, "content type application/json"),
        (b"[" + b"1," * MAX_BODY_BYTES, "application/json", 413, "bytes"),
        (b'{"inputs": [[[0, 0, 0]]]}', "application/json", 400, "expected shape (batch, 22, 3)"),
    ],
)
def test_bodies_that_cannot_be_answered_are_one_line(
    ours: Send, body: bytes, content_type: str, status: int, line: str
) -> None:
    found, answer = ours(body, content_type)
    assert found == status
    message = answer["message"]
    assert line in message
    assert "\n" not in message
    assert "Traceback" not in message


def test_too_many_conformations_are_refused(ours: Send, positions: np.ndarray) -> None:
    many = np.zeros((MAX_CONFORMATIONS + 1, 1, 3)).tolist()
    status, answer = ours(json.dumps({"inputs": many}))
    assert status == 400
    assert f"at most {MAX_CONFORMATIONS}" in answer["message"]


def test_a_length_that_is_not_said_is_counted(ours: Send) -> None:
    parts = (b" " * 2**20 for _ in range(MAX_BODY_BYTES // 2**20 + 1))
    assert ours(parts)[0] == 413
