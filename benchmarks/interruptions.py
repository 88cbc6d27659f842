"""Runs killed at random moments and continued by the same command end as if nothing had been.

    python benchmarks/interruptions.py --parallel 2 --write
    python benchmarks/interruptions.py --local 0 --mlflow 0 --ray 0 --server 20 \\
      --record interruptions_server --write

Four kinds of small runs: in one process; the same recorded in a file of MLflow, or by a server of
it; on Ray with two workers and MLflow. Each is done undisturbed, then again and again with SIGKILL
at a moment drawn uniformly over the undisturbed run's time; some of the continued runs are killed
too. What is killed is the driver; on Ray the driver alone, the driver with everything it started
(as when a machine dies), or one of Ray's worker processes; of a run with a server that server,
which is started again when the run has ended without it. Compared are the arrays of all shards,
both models, every number of ``metrics.json`` that is no time, and what MLflow holds: bit for bit.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from mlflow.tracking import MlflowClient
from record import publish
from tracking_server import Server

from bnce_dist.data.atomic import file_sha256, read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import TrackingConfig
from bnce_dist.pipeline.run import STAGE_NAMES

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "jobs" / "configs" / "smoke.yaml"
NAME = "run"
SMALLER = (
    "dataset.num_chains=32",
    *(f"{section}.num_steps=30" for section in ("emulator", "energy")),
    *(f"{section}.warmup_steps=5" for section in ("emulator", "energy")),
    *(f"{section}.checkpoint_interval=5" for section in ("emulator", "energy")),
    *("generate.num_samples=400", "generate.shard_size=100"),
    *("evaluate.num_samples=200", "evaluate.num_exact=30", "evaluate.shard_size=50"),
    *("evaluate.annealing.num_levels=2", "evaluate.annealing.num_pilot=20"),
)
ALONE, ON_RAY = "cluster.executor=local", "cluster.num_workers=2"
FLAVOURS: Mapping[str, Sequence[str]] = {
    "local": (ALONE, "tracking.backend=jsonl"),
    "mlflow": (ALONE, "tracking.backend=mlflow"),
    "server": (ALONE, "tracking.backend=mlflow"),
    "ray": (ON_RAY, "tracking.backend=mlflow"),
}
KILLED: Mapping[str, Sequence[str]] = {
    "server": ("server",),
    "ray": ("driver", "everything", "worker"),
}
"""What is killed of a flavour, if not the driver alone."""
ELSEWHERE = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
SHARE_KILLED_TWICE = 0.3
LONGEST_SECONDS = 3600.0
# How it was computed, not what came out.
NOT_COMPARED = {"commit", "versions", "hardware", "peak_memory_gb", "speedup_over_exact"}


@dataclass
class Trial:
    """One run that is killed and continued.

    Args:
        output: Folder of its run's folder.
        flavour: How it is run.
        server: Where it is recorded, if not in a file.
    """

    output: Path
    flavour: str
    server: Server | None = None
    kills: list[str] = field(default_factory=list)
    error: str = ""

    @classmethod
    def of(cls, output: Path, flavour: str) -> "Trial":
        """Return a trial with what it needs besides its command."""
        return cls(output, flavour, Server(output) if flavour == "server" else None)

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.output / NAME

    @property
    def stage(self) -> str:
        """Where the run is: the stage that is not finished, or what comes before or after."""
        if not (self.folder / "config.yaml").exists():
            return "start"
        for name in STAGE_NAMES:
            if not Artifact.is_declared_finished(self.folder / name):
                return name
        return "report" if (self.folder / "metrics.json").exists() else "results"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command of the run, which is also the one that continues it."""
        self.output.mkdir(parents=True, exist_ok=True)
        if self.server is not None:
            self.server.start()
        place = ["--output", self.output, "--name", NAME, "--config", SMOKE]
        command = [sys.executable, "jobs/train.py", *place, *SMALLER, *FLAVOURS[self.flavour]]
        if self.server is not None:
            command.append(f"tracking.store={self.server.address}")
        kept = {
            k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
        }
        with (self.output / "stderr.txt").open("wb") as stderr:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=kept | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def finish(self) -> None:
        """Run the command to its end; of a bad end its last line is kept."""
        if self._ends_well(self.start()):
            return
        lines = (self.output / "stderr.txt").read_text(errors="replace").strip().splitlines()
        self.error = lines[-1] if lines else "no message"

    def end(self) -> None:
        """Stop what the trial needed besides its command."""
        if self.server is not None:
            self.server.kill()

    def kill(self, kind: str, moment: float, choose: random.Random) -> None:
        """Run the command and kill something a moment after its start [s], if it still runs then.

        A run whose worker dies goes on by itself; it is waited for.
        """
        started = time.monotonic()
        driver = self.start()
        with suppress(subprocess.TimeoutExpired):
            driver.wait(moment)
        stage = self.stage
        victims = _victims(driver, self.server, kind, choose) if driver.poll() is None else []
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        if victims:
            self.kills.append(f"{kind} in {stage} after {time.monotonic() - started:.1f} s")
        self._ends_well(driver)

    def _ends_well(self, driver: subprocess.Popen[bytes]) -> bool:
        try:
            return driver.wait(LONGEST_SECONDS) == 0
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            return False


def _victims(
    driver: subprocess.Popen[bytes], server: Server | None, kind: str, choose: random.Random
) -> list[psutil.Process]:
    """Return what is to be killed, waiting for a worker if there is none yet."""
    if server is not None and server.process is not None:
        process = psutil.Process(server.process.pid)
        return [process, *process.children(recursive=True)]
    process = psutil.Process(driver.pid)
    if kind == "driver":
        return [process]
    while driver.poll() is None:
        with suppress(psutil.NoSuchProcess):
            started = process.children(recursive=True)
            if kind == "everything":
                return [process, *started]
            workers = [child for child in started if _is_worker(child)]
            if workers:
                return [choose.choice(workers)]
        time.sleep(0.05)
    return []


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "".join(process.cmdline()[:1]).startswith("ray::")
    return False


def fingerprint(trial: Trial) -> dict[str, Any]:
    """Return everything that must not depend on interruptions, by name."""
    folder = trial.folder
    found: dict[str, Any] = {
        f"metrics.{name}": value
        for name, value in read_json(folder / "metrics.json").items()
        if _is_compared(name)
    }
    for name in ("train_emulator/emulator.pt", "train_energy/energy.pt"):
        found[name] = file_sha256(folder / name)
    for manifest in sorted(folder.rglob("manifest.json")):
        for name, array in ShardedDataset.open(manifest.parent).load().items():
            if _is_compared(name):
                key = f"{manifest.parent.relative_to(folder)}.{name}"
                found[key] = hashlib.sha256(array.tobytes()).hexdigest()
    store = trial.output / "mlflow.db"
    return found | (_recorded(store) if store.exists() else {})


def _is_compared(name: str) -> bool:
    return "seconds" not in name and name not in NOT_COMPARED


def _recorded(store: Path) -> dict[str, Any]:
    """Return what MLflow holds: how often each run, its status, and every value of its metrics."""
    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name(TrackingConfig().experiment)
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        name = f"mlflow.{run.info.run_name}"
        found.setdefault(name, []).append(run.info.status)
        for metric in filter(_is_compared, run.data.metrics):
            if metric != "samples_per_second":
                points = client.get_metric_history(run.info.run_id, metric)
                values = sorted((point.step, repr(point.value)) for point in points)
                found.setdefault(f"{name}.{metric}", []).extend(values)
    for version in client.search_model_versions():
        found.setdefault(f"mlflow.models.{version.name}", []).append(int(version.version))
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of what two runs do not have in common."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def undisturbed(flavour: str, folder: Path, num_runs: int) -> tuple[dict[str, Any], float]:
    """Return the fingerprint of undisturbed runs, several at once, and how long they took [s]."""
    trials = [Trial.of(folder / f"undisturbed{number}", flavour) for number in range(num_runs)]
    started = time.monotonic()
    with ThreadPoolExecutor(num_runs) as threads:
        list(threads.map(Trial.finish, trials))
    seconds = time.monotonic() - started
    for trial in trials:
        if trial.error:
            raise SystemExit(f"an undisturbed run failed: {trial.error}")
    for trial in trials:
        trial.end()
    first, *others = map(fingerprint, trials)
    for other in others:
        if differing(first, other):
            raise SystemExit(f"undisturbed runs differ in {differing(first, other)}")
    return first, seconds


def run_trial(
    flavour: str, seed: int, expected: Mapping[str, Any], seconds: float, number: int
) -> dict[str, Any]:
    """Return what became of one run that was killed once or twice and then left alone."""
    choose = random.Random(f"{seed} {flavour} {number}")
    kinds = KILLED.get(flavour, ("driver",))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        trial = Trial.of(Path(directory) / "out", flavour)
        left = seconds
        for _ in range(2 if choose.random() < SHARE_KILLED_TWICE else 1):
            moment = choose.uniform(0, left)
            trial.kill(choose.choice(kinds), moment, choose)
            left -= moment
        trial.finish()
        trial.end()
        differs = [] if trial.error else differing(fingerprint(trial), expected)
        leftovers = sorted(path.name for path in trial.folder.rglob(".*.part"))
    outcome = {"trial": number, "kills": trial.kills, "differs": differs, "error": trial.error}
    print(json.dumps({"flavour": flavour, **outcome, "leftovers": leftovers}), file=sys.stderr)
    return outcome | {"leftovers": leftovers}


def measure(flavour: str, num_trials: int, seed: int, parallel: int) -> dict[str, Any]:
    """Return how many killed runs of a flavour ended as the undisturbed one, and which did not."""
    at_once = 1 if flavour == "ray" else parallel
    with tempfile.TemporaryDirectory() as directory:
        expected, seconds = undisturbed(flavour, Path(directory), at_once)
    with ThreadPoolExecutor(at_once) as threads:
        run = partial(run_trial, flavour, seed, expected, seconds)
        outcomes = list(threads.map(run, range(num_trials)))
    kills = [kill for outcome in outcomes for kill in outcome["kills"]]
    failures = [o for o in outcomes if o["differs"] or o["error"]]
    return {
        "num_trials": num_trials,
        "num_identical": num_trials - len(failures),
        "num_kills": len(kills),
        "num_killed_twice": sum(len(outcome["kills"]) > 1 for outcome in outcomes),
        "kills_by_kind": dict(Counter(kill.split()[0] for kill in kills)),
        "kills_by_stage": dict(Counter(kill.split()[2] for kill in kills)),
        "num_with_leftovers": sum(bool(outcome["leftovers"]) for outcome in outcomes),
        "num_compared": len(expected),
        "seconds_undisturbed": round(seconds, 1),
        "failures": failures,
        "kills": [", then ".join(outcome["kills"]) or "none" for outcome in outcomes],
    }


def main(
    local: Annotated[int, typer.Option(help="Trials in one process.")] = 60,
    mlflow: Annotated[int, typer.Option(help="The same, recorded in MLflow.")] = 30,
    server: Annotated[int, typer.Option(help="Trials with a server of MLflow.")] = 0,
    ray: Annotated[int, typer.Option(help="Trials on Ray, with MLflow.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, help="At once, those on Ray apart.")] = 1,
    record: Annotated[str, typer.Option(help="Name of the record.")] = "interruptions",
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Kill, continue and compare; print one JSON line and write it if asked."""
    counts = {"local": local, "mlflow": mlflow, "server": server, "ray": ray}
    numbers = {
        flavour: measure(flavour, count, seed, parallel)
        for flavour, count in counts.items()
        if count
    }
    total = {
        name: sum(one[name] for one in numbers.values())
        for name in ("num_trials", "num_identical", "num_kills")
    }
    packages = ["torch", "ray", "mlflow", "bnce_dist"]
    publish(record, {"seed": seed, **total, **numbers}, packages, write=write)


if __name__ == "__main__":
    typer.run(main)
