"""What breaks first when a fleet has ten thousand members.

    python benchmarks/fleet_scale.py --write

The scheduler, the progress display, the tracking, the table, the figure and the report are the
real ones. The stages of a member are short sleeps, after which it leaves the folders and numbers
of a finished run; a cluster of this machine pretends to have more cores than it has, because
sleeping takes none. Half-way the driver is killed and the same command goes on. What it takes to
build a molecule, which every member needs before anything starts, is measured on a few.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from mlflow.tracking import MlflowClient
from record import publish

from bnce_dist.data.atomic import write_json
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config, TrackingConfig
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.runs.fleet.run import (
    PreparedFleet,
    prepare_fleet,
    run_members,
    tracked_fleet,
    write_fleet,
)
from bnce_dist.runs.molecule import PreparedRun, prepare, tracked, with_common_store

STAGE_SECONDS = 0.05
NUM_CORES = 8
BUILT = "GA,GC,GS,GT,GV,AS,AV,SG"


def main(
    members: Annotated[int, typer.Option(min=10, help="Of the fleet.")] = 10_000,
    recorded: Annotated[int, typer.Option(min=10, help="Of a smaller one that uses MLflow.")] = 50,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
    folder: Annotated[Path | None, typer.Option(hidden=True, help="Of the driver.")] = None,
    backend: Annotated[str, typer.Option(hidden=True, help="Of the driver.")] = "none",
) -> None:
    """Run both fleets, print one JSON line and write it if asked."""
    if folder is not None:
        print(json.dumps(drive(members, folder, backend)))
        return
    with tempfile.TemporaryDirectory() as directory:
        numbers = {
            "members": members,
            "stage_seconds": STAGE_SECONDS,
            "pretended_cores": NUM_CORES,
            "interrupted": interrupted(members, Path(directory) / "large"),
            "with_mlflow": whole(recorded, Path(directory) / "small", "mlflow"),
            "without_mlflow": whole(recorded, Path(directory) / "plain", "none"),
        }
        numbers["seconds_to_build_a_member"] = seconds_to_build(Path(directory) / "built")
    publish("fleet_scale", numbers, ("ray", "mlflow", "bnce_dist"), write=write)


def interrupted(members: int, folder: Path) -> dict[str, Any]:
    """Kill the driver when half of the members have ended, and start it again."""
    process = driver(members, folder, "none")
    while num_ended(folder) < members // 2:
        if process.poll() is not None:
            raise SystemExit(f"the driver ended with {process.returncode}")
        time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = num_ended(folder)
    return {"ended_before_the_kill": before, **result(driver(members, folder, "none"))}


def whole(members: int, folder: Path, backend: str) -> dict[str, Any]:
    """Run a fleet without a kill."""
    return {"members": members, **result(driver(members, folder, backend))}


def driver(members: int, folder: Path, backend: str) -> "subprocess.Popen[str]":
    """Start a process that runs a fleet."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--members", str(members), "--folder", str(folder), "--backend", backend]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what a driver printed last."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the driver ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


def num_ended(folder: Path) -> int:
    """Return how many members have left their numbers."""
    return sum(1 for _ in folder.glob("M*/metrics.json"))


def drive(members: int, folder: Path, backend: str) -> dict[str, Any]:
    """Run the fleet of this folder as `run_fleet` does, with members that sleep."""
    ensure_ray(num_cpus=NUM_CORES)
    config = Config.model_validate({"tracking": {"backend": backend}, "target": {"sequence": "GG"}})
    config = with_common_store(config, folder)
    first = prepare(config, RunFolder(folder / "M00000"))
    names = [f"M{number:05d}" for number in range(members)]
    runs = {name: replace(first, folder=RunFolder(folder / name)) for name in names}
    for run in runs.values():
        run.folder.path.mkdir(exist_ok=True)
    fleet = PreparedFleet(config, folder, runs)
    already, started = num_ended(folder), time.perf_counter()
    with tracked_fleet(config, folder) as tracker:
        outcomes = run_members(fleet.runs, asleep, RayExecutor(), STAGE_NAMES)
        scheduled = time.perf_counter()
        write_fleet(outcomes, folder, tracker)
    written = time.perf_counter()
    if failed := [outcome for outcome in outcomes if outcome.error]:
        raise SystemExit(f"{len(failed)} members failed, the first with {failed[0].error}")
    return {
        "members_per_second": round((members - already) / (scheduled - started), 2),
        "seconds_of_members": round(scheduled - started, 1),
        "seconds_of_table_figure_and_report": round(written - scheduled, 1),
        "driver_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "table_kb": round((folder / "fleet.md").stat().st_size / 1024),
        "report_kb": round((folder / "report.html").stat().st_size / 1024),
        **(stored(config.tracking) if backend == "mlflow" else {}),
    }


def stored(tracking: TrackingConfig) -> dict[str, int]:
    """Return what the store holds of all members."""
    client = MlflowClient(tracking.store)
    experiment = client.get_experiment_by_name(tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], max_results=50_000)
    database = Path(str(tracking.store).removeprefix("sqlite:///"))
    return {
        "store_runs": len(runs),
        "store_metrics": sum(len(run.data.metrics) for run in runs),
        "store_kb": round(database.stat().st_size / 1024),
    }


def asleep(run: PreparedRun, _: Executor) -> dict[str, Any]:
    """Leave what a member leaves after sleeping through its stages; finished ones are over."""
    params = run.config.model_dump(mode="json", exclude={"cluster", "tracking"})
    with run.folder.lock(), tracked(run.config.tracking, run.folder.path, params) as tracker:
        for stage in STAGE_NAMES:
            artifact = Artifact(run.folder.stage(stage), "asleep")
            if not artifact.is_finished():
                artifact.prepare(run.folder.path / "superseded")
                time.sleep(STAGE_SECONDS)
                artifact.finish({"seconds": STAGE_SECONDS})
        metrics = numbers_of(run.folder.path.name)
        write_json(run.folder.path / "metrics.json", metrics)
        tracker.log_metrics({k: v for k, v in metrics.items() if isinstance(v, float)})
        tracker.log_artifact(run.folder.path / "metrics.json")
    return metrics


def numbers_of(name: str) -> dict[str, Any]:
    """Return metrics of the size of a real run's."""
    rng = np.random.default_rng(int(name[1:]))
    reference = float(rng.normal(3.5, 0.8))
    value = reference + float(rng.normal(0.0, 0.05))
    filler = {f"number_{index}": float(rng.normal()) for index in range(150)}
    return {
        "delta_f_kT": value,
        "delta_f_stderr_kT": 0.04,
        "delta_f_learned_kT": value + 0.1,
        "delta_f_interval_kT": [value - 0.1, value + 0.1],
        "delta_f_reference_kT": reference,
        "delta_f_reference_stderr_kT": 0.04,
        "delta_f_reference_source": "this run",
        "delta_f_reference_run_converged": True,
        "energy_w2_kT": 0.2,
        "torsion_w2_rad": 0.1,
        "torsion_w2_baseline_rad": 0.05,
        "ess_fraction": 0.5,
        "pareto_k": 0.3,
        "num_mirrored": 0,
        "num_rejected": 3,
        "ess_num_samples": 10_000,
        "reliable": True,
        "verdict": {"reliable": True, "reasons": [], "advice": []},
        "seconds": dict.fromkeys(STAGE_NAMES, STAGE_SECONDS),
        **filler,
    }


def seconds_to_build(folder: Path) -> float:
    """Return how long one core needs to prepare a dipeptide."""
    from bnce_dist.pipeline.executor import LocalExecutor

    started = time.process_time()
    config = Config(tracking=TrackingConfig(backend="none"))
    fleet = prepare_fleet(config, BUILT, folder, LocalExecutor())
    return round((time.process_time() - started) / len(fleet.runs), 1)


if __name__ == "__main__":
    typer.run(main)
