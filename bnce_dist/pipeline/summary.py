"""What a terminal shows of ``metrics.json``: one line for each number, the verdict below them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnce_dist.generator.verdict import Verdict


def summary(metrics: Mapping[str, Any], folder: Path) -> str:
    """Return a short table of a run's ``metrics.json``."""
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in metrics["seconds"].items())
    verdict = Verdict.from_record(metrics["verdict"])
    rows = {
        "delta_f": _interval(metrics),
        **reference_rows(metrics),
        **(estimate_rows(metrics) if metrics["delta_f_kT"] is not None else {}),
        "log density error": f"{metrics['log_density_rmse_kT']:.2f} kT, "
        f"{metrics['speedup_over_exact']:.0f} times faster than exact for one more sample",
        "break-even": break_even(metrics),
        "time": f"{sum(metrics['seconds'].values()):.0f} s ({stages})",
        "memory": f"{metrics['peak_memory_gb']:.1f} GB",
        "folder": str(folder),
    }
    return table_of(rows, verdict)


def table_of(rows: Mapping[str, str], verdict: Verdict) -> str:
    """Return rows of names and texts for a terminal, a verdict below them."""
    lines = [f"{name:<20} {text}" for name, text in rows.items()]
    heads = ["verdict", *("" for _ in verdict.advice)]
    lines += [f"{head:<20} {text}" for head, text in zip(heads, verdict.lines(), strict=True)]
    return "\n".join(lines)


def reference_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return what the result should be, as far as it is known."""
    rows = {}
    if (source := metrics["delta_f_reference_source"]) is not None:
        rows["reference"] = f"{with_error(metrics, 'delta_f_reference')} ({source})"
    if metrics["delta_f_reference_run_kT"] is not None:
        converged = "" if metrics["delta_f_reference_run_converged"] else ", NOT converged"
        text = with_error(metrics, "delta_f_reference_run")
        rows["reference, this run"] = f"{text}{converged}"
    return rows or {"reference": "none"}


def _interval(metrics: Mapping[str, Any]) -> str:
    if metrics["delta_f_kT"] is None:
        return "none"
    return with_interval(metrics, "delta_f")


def estimate_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return what there is to say of the weights and of what is made of them."""
    return {
        "energy model alone": with_error(metrics, "delta_f_learned"),
        "exact likelihood": f"{with_error(metrics, 'delta_f_exact')} "
        f"(n = {metrics['log_density_num_samples']})",
        **_bennett_row(metrics),
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['ess_num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        **_one_step_row(metrics),
        **{
            f"delta_f at {row['temperature_kelvin']:g} K": temperature_text(row)
            for row in metrics.get("temperatures", [])
        },
        "Pareto k": f"{metrics['pareto_k_in_state']:.2f} in the state, "
        f"{metrics['pareto_k_outside_state']:.2f} outside",
    }


def break_even(metrics: Mapping[str, Any]) -> str:
    """Return from how many samples on the energy model is cheaper than exact densities of all."""
    seconds = metrics.get("energy_model_cpu_seconds")
    if seconds is None:
        return "unknown: the run is older than the record of its energy model's CPU time"
    exact, learned = (metrics[f"{kind}_cpu_seconds_per_sample"] for kind in ("exact", "learned"))
    num_samples = seconds / max(exact - learned, 1e-12)
    return (
        f"{num_samples:,.0f} samples: the energy model and its data took {seconds:.0f} CPU-s, "
        f"an exact density {exact:.3f} CPU-s"
    )


def _bennett_row(metrics: Mapping[str, Any]) -> dict[str, str]:
    if "delta_f_bennett_kT" not in metrics:
        return {}
    return {"with MD frames": f"{with_error(metrics, 'delta_f_bennett')} (Bennett's ratio)"}


def _one_step_row(metrics: Mapping[str, Any]) -> dict[str, str]:
    if "annealing_num_levels" not in metrics:
        return {}
    levels = f"{metrics['annealing_num_levels']} levels"
    if at_limit := metrics.get("annealing_num_levels_at_limit"):
        levels += f", {at_limit} of them longer than asked: max_levels lets none be shorter,"
    row = with_error(metrics, "delta_f_one_step")
    if (fraction := metrics["ess_fraction_one_step"]) is not None:
        row += f", effective samples {fraction:.3f}"
    return {"without annealing": f"{row} ({levels} since)"}


def temperature_text(row: Mapping[str, Any]) -> str:
    """Return one row of ``temperatures`` in ``metrics.json`` as a line for people."""
    effective = f"effective samples {row['ess_fraction']:.3f}"
    if row["delta_f_kT"] is None:
        return f"out of reach of the model, {effective}"
    reliable = "" if row["reliable"] else ", UNRELIABLE"
    return (
        f"{with_interval(row, 'delta_f')}, energy {row['delta_u_kj_mol']:.1f} +- "
        f"{row['delta_u_stderr_kj_mol']:.1f} kJ/mol, entropy {row['delta_s_j_mol_kelvin']:.0f} +- "
        f"{row['delta_s_stderr_j_mol_kelvin']:.0f} J/mol/K, {effective}{reliable}"
    )


def with_error(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT``, if it is known."""
    if metrics[f"{name}_kT"] is None:
        return "none"
    return f"{metrics[f'{name}_kT']:.2f} +- {metrics[f'{name}_stderr_kT']:.2f} kT"


def with_interval(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT`` and ``<name>_interval_kT``."""
    low, high = metrics[f"{name}_interval_kT"]
    return f"{with_error(metrics, name)}, 95 % interval [{low:.2f}, {high:.2f}]"
