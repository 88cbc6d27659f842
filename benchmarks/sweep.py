"""A 12-trial sweep, its driver killed half-way and resumed: is every final metric there once?

The sweep is `jobs/configs/sweeps/planar_weights.yaml`: successive halving on two cores, recorded in
MLflow. The driver gets SIGKILL when half of the trials have ended; then the same command runs
again with ``--resume``.

    OMP_NUM_THREADS=1 python benchmarks/sweep.py --write
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from mlflow.tracking import MlflowClient
from record import publish

from bnce_dist.data.atomic import read_json
from bnce_dist.pipeline.config import TrackingConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.trial import TrialResult

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "jobs" / "configs" / "sweeps" / "planar_weights.yaml"
NUM_TRIALS = 12


def start(folder: SweepFolder, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the driver."""
    place = ["--output", folder.path.parent, "--name", folder.path.name]
    count = f"num_trials={NUM_TRIALS}"
    command = [sys.executable, "jobs/sweep.py", SWEEP, *place, *arguments, count]
    return subprocess.Popen(command, cwd=ROOT)


def kill_half_way(folder: SweepFolder) -> list[TrialResult]:
    """Run the sweep until half of its trials have ended and return their results."""
    with start(folder) as driver:
        while driver.poll() is None and len(folder.results) < NUM_TRIALS // 2:
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
        if driver.wait() != -signal.SIGKILL:
            raise SystemExit("the sweep ended before it could be killed")
    return folder.results


def final_metrics_in_mlflow(folder: SweepFolder, metric: str) -> dict[str, list[float]]:
    """Return every value the store holds of each trial's final metric, over all its child runs."""
    client = MlflowClient(f"sqlite:///{folder.path.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(TrackingConfig().experiment)
    values: dict[str, list[float]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = client.get_metric_history(run.info.run_id, f"final_{metric}")
        if "mlflow.parentRunId" in run.data.tags:
            values.setdefault(run.info.run_name, []).extend(point.value for point in history)
    return values


def measure(folder: SweepFolder) -> dict[str, Any]:
    """Kill, resume, and compare the folder, the table and MLflow."""
    started = time.monotonic()
    ended_before = kill_half_way(folder)
    unfinished = {trial.name: trial.history for trial in folder.trials if trial.result is None}
    killed = time.monotonic()
    with start(folder, "--resume") as driver:
        if driver.wait():
            raise SystemExit("the resumed sweep failed")
    done = time.monotonic()
    results = {result.name: result for result in folder.results}
    table = Counter(row["name"] for row in read_json(folder.path / "table.json"))
    stored = final_metrics_in_mlflow(folder, "kl_normalised")
    return {
        "num_trials": NUM_TRIALS,
        "ended_before_the_kill": len(ended_before),
        "running_at_the_kill": sum(map(bool, unfinished.values())),
        "ended_trials_repeated": sum(results[r.name] != r for r in ended_before),
        "training_records_repeated": sum(
            folder.trial(int(name)).history[: len(history)] != history
            for name, history in unfinished.items()
        ),
        "final_metrics_once_in_table": sum(table[name] == 1 for name in results),
        "final_metrics_once_in_mlflow": sum(
            stored.get(f"trial {name}") == [result.metric] for name, result in results.items()
        ),
        "status": dict(Counter(result.status for result in results.values())),
        "best_kl_normalised": min(r.metric for r in results.values() if r.status == "finished"),
        "seconds": {"until_kill": round(killed - started), "resumed": round(done - killed)},
    }


def main(
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    with tempfile.TemporaryDirectory() as directory:
        numbers = measure(SweepFolder(Path(directory) / "sweep"))
    publish("sweep", numbers, ["ray", "mlflow", "torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
