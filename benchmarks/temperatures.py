"""One model at other temperatures, beside umbrella sampling at each of them.

A finished run of alanine dipeptide anneals its samples to other temperatures; the reference at each
is an umbrella sampling of its own, which knows nothing of the model.

    python benchmarks/temperatures.py --output runs --run seed0 --write
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from alanine_dipeptide import JOB
from record import publish

from bnce_dist.data.atomic import read_json
from bnce_dist.generator.folder import RunFolder

TEMPERATURES_KELVIN = (280, 320, 350)
KEPT = ("delta_f_kT", "delta_f_stderr_kT", "ess_fraction", "reliable")


def main(
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    run: Annotated[str, typer.Option(help="A finished run of alanine dipeptide.")] = "seed0",
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Anneal, simulate, print one JSON line and write it if asked."""
    config = output / run / "config.yaml"
    asked = f"evaluate.temperatures_kelvin={list(map(float, TEMPERATURES_KELVIN))}"
    job(output, run, "--config", config, "--resume", asked)
    found = {
        row["temperature_kelvin"]: row
        for row in read_json(output / run / "metrics.json")["temperatures"]
    }
    rows = [beside(found[kelvin], reference(output, kelvin)) for kelvin in TEMPERATURES_KELVIN]
    numbers = {
        "temperatures": rows,
        "abs_error_max_kT": max(abs(row["error_kT"]) for row in rows),
        "num_within_two_errors": sum(
            abs(row["error_kT"]) < 2 * row["error_stderr_kT"] for row in rows
        ),
    }
    publish("temperatures", numbers, ("torch", "openmm", "ray"), write=write)


def job(output: Path, name: str, *arguments: str | Path) -> None:
    """Run the main job."""
    command = [sys.executable, JOB, "--output", output, "--name", name, *arguments]
    subprocess.run(command, check=True)


def reference(output: Path, kelvin: int) -> dict[str, Any]:
    """Return the result of an umbrella sampling at a temperature, made now if it is not there."""
    name = f"reference_{kelvin}K"
    result = RunFolder(output / name).stage("simulate") / "reference" / "result.json"
    if not result.exists():
        # Training data come with the stage, and nothing is trained.
        settings = (f"target.temperature_kelvin={kelvin}.0", "seed=7", "dataset.num_chains=32")
        job(output, name, "--stage", "simulate", *settings)
    return read_json(result)


def beside(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Return what the model says at a temperature with what its reference does."""
    stderr = (row["delta_f_stderr_kT"] ** 2 + reference["stderr_kT"] ** 2) ** 0.5
    return {
        "temperature_kelvin": row["temperature_kelvin"],
        **{name: row[name] for name in KEPT},
        "delta_f_reference_kT": reference["delta_f_kT"],
        "delta_f_reference_stderr_kT": reference["stderr_kT"],
        "delta_f_reference_converged": reference["converged"],
        "error_kT": row["delta_f_kT"] - reference["delta_f_kT"],
        "error_stderr_kT": stderr,
    }


if __name__ == "__main__":
    typer.run(main)
