"""The whole job on a local Ray: the same command, and the same simulations, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnce_dist.data.shards import ShardedDataset

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> None:
    command = [sys.executable, "jobs/train.py", "--config", "jobs/configs/smoke.yaml", *arguments]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_what_one_process_gives(tmp_path: Path, finished_run: Path) -> None:
    run("--output", tmp_path, "--name", "ray", "cluster.num_workers=2")
    checksums = [
        [shard.sha256 for shard in ShardedDataset.open(folder / "simulate" / data).shards]
        for data in ("umbrella", "dataset")
        for folder in (tmp_path / "ray", finished_run)
    ]
    assert checksums[0] == checksums[1]
    assert checksums[2] == checksums[3]
    metrics = json.loads((tmp_path / "ray" / "metrics.json").read_text())
    assert metrics["ess_num_samples"] == 1000
    assert metrics["delta_f_stderr_kT"] > 0
