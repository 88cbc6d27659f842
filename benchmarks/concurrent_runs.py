"""Six runs that begin together with an MLflow store that does not exist yet.

    python benchmarks/concurrent_runs.py --write

All of them make the store, send their records, register their models, and read what was registered
before. Looked at afterwards: does every run say it finished, is every number of its
``metrics.json`` in the store once, is its model registered once, and did any of them say that the
database was locked?
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from interruptions import ELSEWHERE, ROOT, SMALLER, SMOKE
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from record import publish

from bnce_dist.data.atomic import read_json
from bnce_dist.pipeline.config import TrackingConfig
from bnce_dist.pipeline.run import STAGE_NAMES

PARENT = "mlflow.parentRunId"


def start(output: Path, number: int) -> subprocess.Popen[bytes]:
    """Start a small run in one process, with a seed of its own."""
    place = ["--config", SMOKE, "--output", output, "--name", f"run{number}"]
    settings = [*SMALLER, f"seed={number}", "cluster.executor=local", "tracking.backend=mlflow"]
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    with (output / f"run{number}.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "jobs/train.py", *place, *settings],
            cwd=ROOT,
            env=kept | {"OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def looked_at(output: Path, numbers: range) -> dict[str, Any]:
    """Return what the folders, the store and the registry hold of the runs."""
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(TrackingConfig().experiment)
    stored = client.search_runs([experiment.experiment_id])
    parents = {run.info.run_name: run for run in stored if PARENT not in run.data.tags}
    children = Counter(
        (run.data.tags[PARENT], run.info.run_name) for run in stored if PARENT in run.data.tags
    )
    versions = Counter(version.run_id for version in client.search_model_versions())
    complete = [_is_complete(client, parents[f"run{n}"], output / f"run{n}") for n in numbers]
    return {
        "num_parents": len(parents),
        "num_with_complete_metrics": sum(complete),
        "num_with_every_stage_once": sum(
            all(children[run.info.run_id, stage] == 1 for stage in STAGE_NAMES)
            for run in parents.values()
        ),
        # A model to reweight, and one to sample.
        "num_with_models_registered_once": sum(
            versions[run.info.run_id] == 2 for run in parents.values()
        ),
        "status": dict(Counter(run.info.status for run in stored)),
    }


def _is_complete(client: MlflowClient, run: Run, folder: Path) -> bool:
    """Return whether the store holds every number of a run's ``metrics.json``, once."""
    expected = {
        name: float(value)
        for name, value in read_json(folder / "metrics.json").items()
        if isinstance(value, int | float)
    }
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in expected}
    return {name: [point.value for point in points] for name, points in histories.items()} == {
        name: [value] for name, value in expected.items()
    }


def main(
    runs: Annotated[int, typer.Option(min=2, help="At once.")] = 6,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run, look, print one JSON line and write it if asked."""
    numbers = range(runs)
    with tempfile.TemporaryDirectory() as directory:
        output, started = Path(directory), time.monotonic()
        processes = [start(output, number) for number in numbers]
        codes = [process.wait() for process in processes]
        seconds = time.monotonic() - started
        said = [(output / f"run{number}.txt").read_text(errors="replace") for number in numbers]
        for code, text in zip(codes, said, strict=True):
            if code:
                print(text[-2000:], file=sys.stderr)
        found = {
            "num_runs": runs,
            "num_completed": codes.count(0),
            "num_that_met_a_locked_database": sum("is locked" in text for text in said),
            "num_with_records_that_waited": sum("records wait" in text for text in said),
            **(looked_at(output, numbers) if not any(codes) else {}),
            "seconds": round(seconds),
        }
    publish("concurrent_runs", found, ["mlflow", "torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
