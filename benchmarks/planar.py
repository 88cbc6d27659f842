"""The planar systems over several seeds: the README's table and its record.

Runs that are finished already are not repeated.

    python benchmarks/planar.py --output runs/planar --seeds 5 --write
    python benchmarks/planar.py --recipe paper --seeds 1      # the published set-up: hours
    python benchmarks/planar.py --output runs/planar --finished  # nothing but what is there
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from record import publish

from bnce_dist.core.systems import SYSTEMS
from bnce_dist.data.atomic import read_json
from bnce_dist.runs.planar.table import markdown, summarise

JOB = Path(__file__).parents[1] / "jobs" / "planar.py"
KEPT = (
    "system",
    "objective",
    "recipe",
    "seed",
    "kl_grid",
    "kl_normalised",
    "log_z_error",
    "cpu_seconds",
    "steps",
    "samples_per_step",
    "num_samples",
    "commit",
)


def main(
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path(
        "runs/planar"
    ),
    seeds: Annotated[int, typer.Option(help="Seeds, from 0 on.")] = 5,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipes; by default those of the job's table.")
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Start nothing; take all finished runs.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run what has not run yet, print the table and one JSON line, and write it if asked."""
    runs = _finished(output) if finished else _run(output, seeds, recipe or [])
    lines = summarise(runs)
    print(markdown(lines))
    numbers = {
        "lines": lines,
        "runs": [{name: run[name] for name in KEPT} for run in runs],
    }
    publish("planar", numbers, ("torch", "numpy", "ray"), write=write)


def _run(output: Path, seeds: int, recipes: list[str]) -> list[dict[str, Any]]:
    chosen = [part for name in recipes for part in ("--recipe", name)]
    command = ["--table", "--json", "--seeds", str(seeds), "--output", str(output), *chosen]
    job = subprocess.run([sys.executable, JOB, *command], check=True, stdout=subprocess.PIPE)
    return json.loads(job.stdout.splitlines()[-1])["runs"]


def _finished(output: Path) -> list[dict[str, Any]]:
    runs = [read_json(path) for path in output.glob("*/metrics.json")]
    return sorted(runs, key=lambda run: (SYSTEMS.index(run["system"]), run["recipe"], run["seed"]))


if __name__ == "__main__":
    typer.run(main)
