"""The two-dimensional systems over several seeds: the README's table and its record.

Runs that are finished already are not repeated.

    python benchmarks/toy_systems.py --output runs/toy --seeds 5 --write
    python benchmarks/toy_systems.py --recipe paper --seeds 1      # the published set-up: hours
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from record import publish

from bnce_dist.pipeline.toy.table import markdown

JOB = Path(__file__).parents[1] / "jobs" / "toy.py"
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
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs/toy"),
    seeds: Annotated[int, typer.Option(help="Seeds, from 0 on.")] = 5,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipes; by default those of the job's table.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run what has not run yet, print the table and one JSON line, and write it if asked."""
    recipes = [part for name in recipe or () for part in ("--recipe", name)]
    command = ["--table", "--json", "--seeds", str(seeds), "--output", str(output), *recipes]
    job = subprocess.run([sys.executable, JOB, *command], check=True, stdout=subprocess.PIPE)
    content = json.loads(job.stdout.splitlines()[-1])
    print(markdown(content["lines"]))
    numbers = {
        "lines": content["lines"],
        "runs": [{name: run[name] for name in KEPT} for run in content["runs"]],
    }
    publish("toy_systems", numbers, ("torch", "numpy", "ray"), write=write)


if __name__ == "__main__":
    typer.run(main)
