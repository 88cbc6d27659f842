"""Whole jobs on a local Ray: what one process gives, whichever way the workers share a model."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from bnce_dist.cli.train import app
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.distributed.cluster import ensure_ray

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "jobs" / "configs"
# Simulated as in every smoke job; what follows is as small as it can be.
SMALL = (
    "emulator.num_steps=20",
    "emulator.warmup_steps=5",
    "energy.num_steps=20",
    "energy.warmup_steps=5",
    "generate.num_samples=500",
    "generate.shard_size=250",
    "evaluate.num_samples=500",
    "evaluate.shard_size=250",
    "evaluate.num_exact=20",
    "evaluate.exact_shard_size=10",
    "evaluate.num_exact_frames=0",
)
ON_RAY = ("cluster.executor=ray", "cluster.num_workers=2")

# Two ranks add the same two gradients, whoever of them keeps what: no bit has been seen to move.
SAME_SUMS_KT = 1e-6

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (make setup-deepspeed)",
)


@pytest.fixture(scope="module")
def ray_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that was started as a command, with DDP."""
    output = tmp_path_factory.mktemp("ray_job")
    command = [sys.executable, "jobs/train.py", "--config", CONFIGS / "smoke.yaml"]
    command += ["--output", output, "--name", "ddp", "cluster.num_workers=2", *SMALL]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return output / "ddp"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """The cluster of the tests before, if they were run."""
    connected = ray.is_initialized()
    ensure_ray(num_cpus=2)
    yield
    if not connected:
        ray.shutdown()


def run(*arguments: str | Path) -> None:
    """Run a job in this process; its work is done where the arguments say."""
    result = CliRunner().invoke(app, [os.fspath(part) for part in arguments])
    assert result.exit_code == 0, result.output


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_ray_gives_what_one_process_gives(ray_run: Path, finished_run: Path) -> None:
    checksums = [
        [shard.sha256 for shard in ShardedDataset.open(folder / "simulate" / data).shards]
        for data in ("umbrella", "dataset")
        for folder in (ray_run, finished_run)
    ]
    assert checksums[0] == checksums[1]
    assert checksums[2] == checksums[3]
    metrics = metrics_of(ray_run)
    assert metrics["ess_num_samples"] == 500
    assert metrics["delta_f_stderr_kT"] > 0


SHARDED = ("cluster.strategy=sharded", *ON_RAY)
ZERO_1, ZERO_2, ZERO_3 = (
    ("cluster.strategy=deepspeed", f"cluster.zero_stage={stage}", *ON_RAY) for stage in (1, 2, 3)
)


@pytest.mark.parametrize(
    ("emulator", "energy"),
    [
        pytest.param(SHARDED, ZERO_1, id="sharded_zero1"),
        # ZeRO-3 trains no energy model.
        pytest.param(ZERO_3, ZERO_2, id="zero3_zero2"),
    ],
)
@needs_deepspeed
def test_every_strategy_comes_to_the_same_free_energy(
    cluster: None,
    ray_run: Path,
    tmp_path: Path,
    emulator: tuple[str, ...],
    energy: tuple[str, ...],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ray_run / "simulate", folder / "simulate")
    command = ("--config", CONFIGS / "smoke.yaml", "--output", tmp_path, "--name", "run", *SMALL)
    run(*command, *emulator, "--stage", "train_emulator")
    run(*command, *energy, "--resume")
    metrics, expected = metrics_of(folder), metrics_of(ray_run)
    for name in ("delta_f_kT", "delta_f_learned_kT", "delta_f_exact_kT"):
        assert metrics[name] == pytest.approx(expected[name], abs=SAME_SUMS_KT), name


def test_the_transferable_path_on_two_workers(cluster: None, tmp_path: Path) -> None:
    small = (
        "transferable.num_steps=20",
        "transferable.warmup_steps=5",
        "energy.num_steps=20",
        "energy.warmup_steps=5",
        "generate.num_samples=200",
        "generate.shard_size=100",
    )
    command = ("--transferable", "--config", CONFIGS / "zero_shot_smoke.yaml", "--molecules", "GA")
    run(*command, "--output", tmp_path, "--name", "fleet", *small, *ON_RAY)
    folder = tmp_path / "fleet"
    (metrics,) = json.loads((folder / "fleet.json").read_text())["molecules"].values()
    assert metrics["ess_num_samples"] == 200
    assert math.isfinite(metrics["delta_f_kT"])
    history = json.loads((folder / "field" / "train_emulator" / "history.json").read_text())
    assert history[-1]["step"] == 20
    assert 0 < history[-1]["loss"] < 10
