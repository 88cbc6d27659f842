"""The seven published dipeptides, judged against their own umbrella sampling and published MD.

A fleet that is finished already is not repeated. What the record holds is read from the members'
``metrics.json``; ``fleet_minutes`` is the time on the clock, if all of the fleet ran in one go.

    python benchmarks/dipeptides.py --output runs --write
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from alanine_dipeptide import JOB, KEPT, kept
from record import publish

from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.runs.fleet.table import (
    PUBLISHED_EXACT_ERROR_KT,
    PUBLISHED_MD_DELTA_F_KT,
    PUBLISHED_MEANS,
)

CONFIG = JOB.parent / "configs" / "dipeptides.yaml"
CLOCK = "clock.json"
"""What the time on the clock is kept in, in the fleet's folder."""
NEAR_KT = 0.15
"""What counts as the same reference [kT]."""
KEPT_HERE = (
    *KEPT,
    "ess_fraction_learned",
    "pareto_k_learned",
    "num_rejected",
    "energy_w2_kT",
    "energy_w2_baseline_kT",
    "energy_w2_emulator_kT",
    "torsion_w2_rad",
    "torsion_w2_emulator_rad",
    "torsion_w2_baseline_rad",
    "delta_f_reference_run_reason",
    "reliable",
)


def main(
    output: Annotated[Path, typer.Option(help="Folder of the fleets' folders.")] = Path("runs"),
    name: Annotated[str, typer.Option(help="Folder of the fleet.")] = "dipeptides",
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run the fleet if it has not run yet, print one JSON line and write it if asked."""
    members = list(PUBLISHED_MD_DELTA_F_KT)
    folder = output / name
    is_new, started = not folder.exists(), time.monotonic()
    if not (folder / "fleet.json").exists():
        arguments = ["--config", CONFIG, "--molecules", ",".join(members)]
        arguments += ["--output", output, "--name", name]
        subprocess.run([sys.executable, JOB, *arguments], check=True)
        if is_new:
            minutes = (time.monotonic() - started) / 60
            write_json(folder / CLOCK, {"fleet_minutes": minutes})
    runs = {member: read_json(folder / member / "metrics.json") for member in members}
    molecules = {member: judged(member, metrics) for member, metrics in runs.items()}
    means = (
        "abs_error_kT",
        "abs_error_learned_kT",
        "abs_error_to_md_kT",
        "abs_error_learned_to_md_kT",
        "energy_w2_kT",
        "energy_w2_baseline_kT",
        "torsion_w2_rad",
        "ess_fraction",
        "ess_fraction_learned",
        "minutes",
    )
    reliable = [molecule for molecule in molecules.values() if molecule["reliable"]]
    numbers = {
        **{f"{mean}_mean": _mean(molecules.values(), mean) for mean in means},
        "num_reliable": len(reliable),
        "abs_error_kT_mean_of_reliable": _mean(reliable, "abs_error_kT") if reliable else None,
        "delta_f_stderr_max_kT": max(m["delta_f_stderr_kT"] for m in molecules.values()),
        **{
            f"{name}_min": min(molecule[name] for molecule in molecules.values())
            for name in ("ess_fraction", "ess_fraction_learned")
        },
        "num_intervals_covering_reference": sum(
            m["interval_covers_reference"] for m in molecules.values()
        ),
        "num_intervals_covering_md": sum(m["interval_covers_md"] for m in molecules.values()),
        "num_references_near_md": sum(
            abs(m["reference_error_to_md_kT"]) <= NEAR_KT for m in molecules.values()
        ),
        "fleet_minutes": read_json(folder / CLOCK)["fleet_minutes"]
        if (folder / CLOCK).exists()
        else None,
        "published_learned": dict(PUBLISHED_MEANS),
        "molecules": molecules,
    }
    publish("dipeptides", numbers, ("torch", "openmm", "ray"), write=write)


def judged(member: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a molecule's metrics, with its errors."""
    low, high = metrics["delta_f_interval_kT"]
    reference, md = metrics["delta_f_reference_run_kT"], PUBLISHED_MD_DELTA_F_KT[member]
    return {
        **kept(metrics, KEPT_HERE),
        "minutes": sum(metrics["seconds"].values()) / 60,
        "published_md_delta_f_kT": md,
        "published_exact_error_kT": PUBLISHED_EXACT_ERROR_KT[member],
        "abs_error_kT": abs(metrics["delta_f_kT"] - reference),
        "abs_error_learned_kT": abs(metrics["delta_f_learned_kT"] - reference),
        "abs_error_learned_to_md_kT": abs(metrics["delta_f_learned_kT"] - md),
        "interval_covers_reference": low <= reference <= high,
        "abs_error_to_md_kT": abs(metrics["delta_f_kT"] - md),
        "reference_error_to_md_kT": reference - md,
        "interval_covers_md": low <= md <= high,
    }


def _mean(molecules: Any, name: str) -> float:
    values = [molecule[name] for molecule in molecules]
    return sum(values) / len(values)


if __name__ == "__main__":
    typer.run(main)
