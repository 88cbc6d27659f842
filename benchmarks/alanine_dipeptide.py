"""The main job for several seeds, judged against the long reference.

Runs that are finished already are not repeated. What the record holds is read from each run's
``metrics.json``; the reference is the committed one (benchmarks/reference.py).

    python benchmarks/alanine_dipeptide.py --output runs --write
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from record import publish

from bnce_dist.data.atomic import read_json

JOB = Path(__file__).parents[1] / "jobs" / "train.py"
KEPT = (
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_interval_kT",
    "delta_f_learned_kT",
    "delta_f_learned_stderr_kT",
    "delta_f_clipped_kT",
    "delta_f_one_step_kT",
    "delta_f_one_step_stderr_kT",
    "delta_f_learned_one_step_kT",
    "delta_f_learned_one_step_stderr_kT",
    "correction_kT",
    "correction_stderr_kT",
    "delta_f_exact_kT",
    "delta_f_exact_stderr_kT",
    "delta_f_reference_run_kT",
    "delta_f_reference_run_stderr_kT",
    "delta_f_reference_run_converged",
    "ess_fraction",
    "ess_fraction_clipped",
    "ess_fraction_exact",
    "ess_fraction_one_step",
    "ess_num_samples",
    "pareto_k",
    "energy_w2_kT",
    "energy_w2_one_step_kT",
    "annealing_num_levels",
    "annealing_cpu_seconds_per_sample",
    "reliable",
    "verdict",
    "log_density_rmse_kT",
    "log_density_offset_kT",
    "log_density_num_samples",
    "speedup_over_exact",
    "seconds",
    "peak_memory_gb",
    "commit",
    "seed",
)
OPTIONAL = (
    "delta_f_bennett_kT",
    "delta_f_bennett_stderr_kT",
    "annealing_settings",
    "annealing_num_levels_at_limit",
)
"""Missing where too few frames were found again by the sampler, and of runs of earlier versions."""


def main(
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    num_seeds: Annotated[int, typer.Option(help="Seeds, from 0 on.")] = 3,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run every seed that has not run yet, print one JSON line and write it if asked."""
    metrics = [run(output, seed) for seed in range(num_seeds)]
    reference = metrics[0]["delta_f_reference_kT"]
    errors = [abs(one["delta_f_kT"] - reference) for one in metrics]
    intervals = [one["delta_f_interval_kT"] for one in metrics]
    numbers = {
        "delta_f_reference_kT": reference,
        "delta_f_reference_stderr_kT": metrics[0]["delta_f_reference_stderr_kT"],
        "delta_f_reference_source": metrics[0]["delta_f_reference_source"],
        "abs_error_mean_kT": sum(errors) / len(errors),
        "abs_error_max_kT": max(errors),
        "num_intervals_covering_reference": sum(a <= reference <= b for a, b in intervals),
        "num_reliable": sum(one["reliable"] for one in metrics),
        "delta_f_stderr_max_kT": max(one["delta_f_stderr_kT"] for one in metrics),
        "ess_fraction_min": min(one["ess_fraction"] for one in metrics),
        "ess_fraction_one_step_min": min(one["ess_fraction_one_step"] for one in metrics),
        "log_density_rmse_max_kT": max(one["log_density_rmse_kT"] for one in metrics),
        "speedup_over_exact_min": min(one["speedup_over_exact"] for one in metrics),
        "pipeline_seconds_min": min(sum(one["seconds"].values()) for one in metrics),
        "pipeline_seconds_max": max(sum(one["seconds"].values()) for one in metrics),
        "peak_memory_gb_max": max(one["peak_memory_gb"] for one in metrics),
        "runs": [kept(one) for one in metrics],
    }
    publish("alanine_dipeptide", numbers, ("torch", "openmm", "ray"), write=write)


def kept(metrics: dict[str, Any], names: tuple[str, ...] = KEPT) -> dict[str, Any]:
    """Return what the record holds of a run's metrics."""
    return {
        **{name: metrics[name] for name in names},
        **{name: metrics.get(name) for name in OPTIONAL},
    }


def run(output: Path, seed: int) -> dict[str, Any]:
    """Return the metrics of one seed's run, made now if it is not there."""
    folder = output / f"seed{seed}"
    if not (folder / "metrics.json").exists():
        arguments = ["--output", output, "--name", folder.name, f"seed={seed}"]
        subprocess.run([sys.executable, JOB, *arguments], check=True)
    return read_json(folder / "metrics.json")


if __name__ == "__main__":
    typer.run(main)
