"""The preflight on made-up nodes, and on two real ones that share one folder and not another."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bnce_dist.distributed import nodes
from bnce_dist.distributed.nodes import NodeFacts, NodeProbe, local_versions
from bnce_dist.distributed.preflight import CLUSTER, MAX_UPLOAD_BYTES, Check, Report, node_checks
from bnce_dist.pipeline.config import Config, MolecularClusterConfig

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
OUTPUT = Path("/shared/runs")
CONFIG = Config()
SOUND = NodeFacts(
    local_versions(),
    gpus_declared=2,
    gpus_usable=2,
    has_deepspeed=False,
    temp_used=0.5,
    storage_free_bytes=10**9,
)


def problems(facts: NodeFacts | str, storage_bytes: int = 0, config: Config = CONFIG) -> list[str]:
    checks = node_checks("a", facts, config, OUTPUT, storage_bytes)
    return [str(problem) for problem in Report(tuple(checks)).problems]


def test_the_limit_of_uploads_is_the_one_of_ray_job_submit() -> None:
    assert MAX_UPLOAD_BYTES == 100 * 2**20


def test_a_sound_node_passes() -> None:
    assert problems(SOUND, storage_bytes=10**9) == []


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            replace(SOUND, versions=local_versions() | {"torch": "1.0"}),
            f"versions on node a: expected torch {local_versions()['torch']}, got torch 1.0;",
        ),
        (
            replace(SOUND, gpus_usable=1),
            "GPUs of node a: expected 2, as many as Ray hands out there, got 1 that torch can use;",
        ),
        (
            replace(SOUND, temp_used=0.97),
            "temporary folder of node a: expected less than 95% of the disk in use, got 97%;",
        ),
        (
            replace(SOUND, unseen=("b", "c")),
            "output folder /shared/runs on node a: expected the files that all other nodes write "
            "there, got none of b, c;",
        ),
        (
            replace(SOUND, storage_error="Read-only file system"),
            "output folder /shared/runs on node a: expected a writable folder, "
            "got Read-only file system;",
        ),
        ("no answer within 60 s", "node a: expected an answer, got no answer within 60 s;"),
    ],
)
def test_each_fault_is_one_line(facts: NodeFacts | str, line: str) -> None:
    (problem,) = problems(facts)
    assert problem.startswith(line)
    assert "\n" not in problem


def test_too_little_space_is_one_line() -> None:
    (problem,) = problems(SOUND, storage_bytes=2 * 10**9)
    assert "expected 2000 MB of free space, got 1000 MB" in problem


def test_deepspeed_is_missed_where_the_strategy_asks_for_it() -> None:
    config = CONFIG.model_copy(update={"cluster": MolecularClusterConfig(strategy="deepspeed")})
    (problem,) = problems(SOUND, config=config)
    assert problem.startswith("DeepSpeed on node a: expected an installation")
    assert problems(replace(SOUND, has_deepspeed=True), config=config) == []


def test_nodes_with_their_own_folders_do_not_see_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "VISIBLE_SECONDS", 0)
    probes = {
        name: NodeProbe(name, 0, tmp_path / name, tmp_path, deepspeed=False) for name in ("a", "b")
    }
    for probe in probes.values():
        assert "storage_error" not in probe.look_around()
    assert probes["a"].unseen(["a", "b"]) == {"unseen": ("b",)}
    for probe in probes.values():
        probe.clean_up()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    facts = NodeProbe("a", 0, tmp_path / "file" / "folder", tmp_path, deepspeed=False).look_around()
    assert facts["storage_error"] == "Not a directory"


def test_the_disk_is_that_of_rays_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of /tmp, if Ray was started elsewhere."""

    def usage(path: Path) -> SimpleNamespace:
        used = 97 if path == tmp_path / "ray" else 5
        return SimpleNamespace(used=used, free=100 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    probe = NodeProbe("a", 0, tmp_path / "mailbox", tmp_path / "ray", deepspeed=False)
    assert probe.look_around()["temp_used"] == pytest.approx(0.97)


def test_the_table_has_a_line_per_node_and_marks_problems() -> None:
    problem = node_checks("b", "asleep", CONFIG, OUTPUT, 0)
    checks = (
        Check("temp", "a", "50% used"),
        Check("storage", "a", "shared"),
        *problem,
        Check("workers", CLUSTER, "all of 2 cores"),
    )
    assert Report(checks).table().splitlines() == [
        "node  temp      storage  answer",
        "a     50% used  shared",
        "b                        none (!)",
        "workers: all of 2 cores",
    ]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder over which the second node has mounted one of its own."""
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def cluster(private: Path) -> Iterator[dict[str, str]]:
    """Two nodes of one core each; gives the environment of their clients."""
    unshare = ["unshare", "--mount", "bash", "-c", 'mount -t tmpfs none "$0" && exec "$@"', private]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system of its own")
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    # Short, because paths of sockets are limited.
    temp = tempfile.mkdtemp(prefix="bnce")
    environment = os.environ | {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": temp,
        # Nodes that end have nobody to hand their work to.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "PYTHONPATH": str(ROOT),
    }
    start = [RAY, "start", "--num-cpus=1", "--node-ip-address=127.0.0.1", "--block"]
    head = [*start, "--head", f"--port={port}", "--include-dashboard=false"]
    second = [*unshare, *start, f"--address=127.0.0.1:{port}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(head, env=environment | {"RAY_ADDRESS": ""}, **quiet)]
    try:
        _wait_for_port(port, processes[0])
        processes.append(subprocess.Popen(second, env=environment, **quiet))
        yield environment
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)
        shutil.rmtree(temp, ignore_errors=True)


def _wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("Ray did not start")


def run(*command: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_two_nodes_that_share_the_folder_pass(cluster: dict[str, str], tmp_path: Path) -> None:
    done = run(
        *("jobs/preflight.py", "--output", tmp_path, "--nodes", "2", "--wait", "120", "--json"),
        environment=cluster,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    storage = {c["node"]: c["found"] for c in report["checks"] if c["name"] == "storage"}
    assert list(storage.values()) == ["shared", "shared"]
    assert "workers" in {c["name"] for c in report["checks"] if c["node"] == CLUSTER}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_every_problem_is_found_at_once(cluster: dict[str, str], private: Path) -> None:
    asked = ["cluster.num_workers=4", "cluster.require_gpus=true"]
    done = run("jobs/preflight.py", "--output", private, *asked, environment=cluster)
    assert done.returncode == 2
    workers, gpus, *storage = done.stderr.splitlines()
    assert "number of workers: expected 1 to 2, what the cluster holds, got 4" in workers
    assert "GPUs of the cluster (cluster.require_gpus): expected at least 1, got 0" in gpus
    assert len(storage) == 2
    for line in storage:
        assert line.startswith(f"error: output folder {private} on node ")
        assert "expected the files that all other nodes write there, got none of " in line
    assert list(private.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_does_not_start_on_nodes_that_do_not_share_its_folder(
    cluster: dict[str, str], private: Path
) -> None:
    done = run("jobs/train.py", "--output", private, "tracking.backend=none", environment=cluster)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: output folder {private} on node ")
    assert not [path for path in private.rglob("*") if path.is_file()]


@pytest.mark.ray
@pytest.mark.slow
def test_a_client_is_told_what_is_missing_and_can_be_terminated(cluster: dict[str, str]) -> None:
    code = """
import os, signal, time, ray
from bnce_dist.cli.common import begin_work
from bnce_dist.distributed.cluster import ensure_ray, wait_for_nodes

version, ray.__version__ = ray.__version__, "1.0.0"
try: ensure_ray()
except ValueError as error: print(error)
ray.__version__ = version
try: wait_for_nodes(3, timeout_seconds=0)
except ValueError as error: print(error)
begin_work()
ray.shutdown()
ensure_ray()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt: print("interrupted")
"""
    done = run("-c", code, environment=cluster)
    mismatch, waiting, end = done.stdout.splitlines()
    assert "expected ray 1.0.0 and python" in mismatch
    assert "Version mismatch" in mismatch
    assert "expected 3 within 0 s, got 2" in waiting
    assert end == "interrupted"
    assert done.returncode == 0, done.stderr
