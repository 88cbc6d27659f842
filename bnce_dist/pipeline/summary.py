"""The result of a run in ten lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnce_dist.pipeline.verdict import Verdict


def summary(metrics: Mapping[str, Any], folder: Path) -> str:
    """Return a short table of a run's ``metrics.json``."""
    low, high = metrics["delta_f_interval_kT"]
    converged = "" if metrics["delta_f_reference_run_converged"] else ", NOT converged"
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in metrics["seconds"].items())
    verdict = Verdict.from_record(metrics["verdict"])
    rows = {
        "delta_f": f"{with_error(metrics, 'delta_f')}, 95 % interval [{low:.2f}, {high:.2f}]",
        "reference": f"{with_error(metrics, 'delta_f_reference')} "
        f"({metrics['delta_f_reference_source']})",
        "reference, this run": f"{with_error(metrics, 'delta_f_reference_run')}{converged}",
        "energy model alone": with_error(metrics, "delta_f_learned"),
        "exact likelihood": f"{with_error(metrics, 'delta_f_exact')} "
        f"(n = {metrics['log_density_num_samples']})",
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['ess_num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        "Pareto k": f"{metrics['pareto_k']:.2f} (reliable below 0.7)",
        "log density error": f"{metrics['log_density_rmse_kT']:.2f} kT, "
        f"{metrics['speedup_over_exact']:.0f} times faster than exact",
        "time": f"{sum(metrics['seconds'].values()):.0f} s ({stages})",
        "memory": f"{metrics['peak_memory_gb']:.1f} GB",
        "folder": str(folder),
    }
    lines = [f"{name:<20} {text}" for name, text in rows.items()]
    heads = ["verdict", *("" for _ in verdict.advice)]
    lines += [f"{head:<20} {text}" for head, text in zip(heads, verdict.lines(), strict=True)]
    return "\n".join(lines)


def with_error(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT``."""
    return f"{metrics[f'{name}_kT']:.2f} +- {metrics[f'{name}_stderr_kT']:.2f} kT"
