"""The results of a fleet, beside what is published about the same molecules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnce_dist.generator.unseen import unseen_notes
from bnce_dist.generator.verdict import Verdict
from bnce_dist.runs.fleet.members import Outcome

PUBLISHED_MD_DELTA_F_KT: Mapping[str, float] = {
    "AC": 3.6648,
    "ET": 4.1130,
    "GN": 4.5604,
    "IM": 3.7278,
    "KS": 3.0814,
    "NY": 3.3597,
    "NF": 3.5702,
}
"""One microsecond of molecular dynamics each, amber14-all with OBC1 at 310 K, phi in (0, 2)
against the rest, without an error bar [kT]. Source: arXiv 2507.00846."""

PUBLISHED_EXACT_ERROR_KT: Mapping[str, float] = {
    "AC": 0.090,
    "ET": 0.187,
    "GN": 0.355,
    "IM": 0.026,
    "KS": 0.133,
    "NY": 0.034,
    "NF": 0.102,
}
"""Error of exact likelihoods against that simulation [kT]. Source: arXiv 2406.14426, as reported
in arXiv 2507.00846."""

PUBLISHED_MEANS: Mapping[str, float] = {"error_kT": 0.434, "energy_w2": 1.089, "torsion_w2": 0.443}
"""Means of learned likelihoods over these seven. Source: arXiv 2507.00846; its torsion distance
wraps angles modulo pi instead of two pi."""

_COLUMNS = (
    "molecule",
    "delta_f (kT)",
    "95 % interval",
    "reference (kT)",
    "error",
    "published MD",
    "published error, exact",
    "energy W2 (halves) (kT)",
    "torsion W2 (baseline)",
    "ESS fraction",
    "Pareto k",
    "mapped",
    "rejected",
    "verdict",
    "minutes",
)


def fleet_record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the whole result as plain data: one entry per run, and means over those alike.

    Where runs have variants, the names of the means begin with theirs.
    """
    summary = {
        f"{variant}_{name}" if variant else name: value
        for variant, runs in _finished(outcomes).items()
        for name, value in _summary(runs).items()
    }
    return {
        "molecules": {o.name: dict(o.metrics or {"error": o.error}) for o in outcomes},
        "summary": summary,
    }


def fleet_table(outcomes: Sequence[Outcome]) -> str:
    """Return the result as a Markdown table with means, notes and failures below it."""
    rows = [_COLUMNS, tuple("---" for _ in _COLUMNS)]
    rows += [_row(o, o.metrics) for o in outcomes if o.metrics is not None]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for variant, runs in _finished(outcomes).items():
        lines += ["", (f"{variant}: " if variant else "") + _means(_summary(runs))]
    notes = [f"{o.name}: {note}" for o in outcomes for note in unseen_notes(o.metrics or {})]
    lines += ["", *notes] if notes else []
    lines += [f"{o.name}: FAILED: {o.error}" for o in outcomes if o.error]
    return "\n".join(lines)


def _finished(outcomes: Sequence[Outcome]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the metrics of the finished runs of each variant."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        if outcome.metrics is not None:
            runs.setdefault(outcome.variant, []).append(outcome.metrics)
    return runs


def _means(summary: Mapping[str, float]) -> str:
    exact = list(PUBLISHED_EXACT_ERROR_KT.values())
    parts = []
    if "abs_error_mean_kT" in summary:
        parts += [
            f"mean |error| of the energy model alone {summary['abs_error_learned_mean_kT']:.3f} kT "
            f"(published: {PUBLISHED_MEANS['error_kT']:.2f})",
            f"with exact densities {summary['abs_error_mean_kT']:.3f} kT "
            f"(published, exact alone: {math.fsum(exact) / len(exact):.2f})",
        ]
    if "energy_w2_mean_kT" in summary:
        parts += [
            f"mean energy W2 {summary['energy_w2_mean_kT']:.2f} kT "
            f"({PUBLISHED_MEANS['energy_w2']:.2f})",
            f"mean torsion W2 {summary['torsion_w2_mean_rad']:.2f} rad "
            f"({PUBLISHED_MEANS['torsion_w2']:.2f}, angles modulo pi)",
        ]
    return ", ".join(parts) or "nothing was simulated to compare with"


def _row(outcome: Outcome, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = metrics["delta_f_interval_kT"]
    return (
        outcome.name,
        f"{metrics['delta_f_kT']:.2f} +- {metrics['delta_f_stderr_kT']:.2f}",
        f"{low:.2f} to {high:.2f}",
        *_against_reference(metrics),
        _known(PUBLISHED_MD_DELTA_F_KT, outcome.sequence),
        _known(PUBLISHED_EXACT_ERROR_KT, outcome.sequence),
        *_distances(metrics),
        f"{metrics['ess_fraction']:.2f}",
        f"{metrics['pareto_k']:.2f}",
        f"{metrics['num_mirrored']}",
        f"{metrics['num_rejected']} of {metrics['ess_num_samples']}",
        Verdict.from_record(metrics["verdict"]).label,
        f"{sum(metrics['seconds'].values()) / 60:.1f}",
    )


def _against_reference(metrics: Mapping[str, Any]) -> tuple[str, str]:
    if metrics["delta_f_reference_kT"] is None:
        return "-", "-"
    own = metrics["delta_f_reference_source"] == "this run"
    unconverged = own and not metrics["delta_f_reference_run_converged"]
    return (
        f"{metrics['delta_f_reference_kT']:.2f} +- {metrics['delta_f_reference_stderr_kT']:.2f}"
        + (" (not converged)" if unconverged else ""),
        f"{_error(metrics):+.2f}",
    )


def _distances(metrics: Mapping[str, Any]) -> tuple[str, str]:
    if "energy_w2_kT" not in metrics:
        return "-", "-"
    baseline = metrics["torsion_w2_baseline_rad"]
    halves = metrics.get("energy_w2_baseline_kT")
    energies = f"{metrics['energy_w2_kT']:.2f}" + (f" ({halves:.2f})" if halves else "")
    return energies, f"{metrics['torsion_w2_rad']:.2f} ({baseline:.2f})"


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return means over runs; those of errors and distances, if all runs have some."""
    errors = [_error(run) for run in runs if run["delta_f_reference_kT"] is not None]
    compared = [run for run in runs if "energy_w2_kT" in run]
    summary: dict[str, float] = {"num_finished": len(runs)}
    if len(errors) == len(runs):
        learned = [run["delta_f_learned_kT"] - run["delta_f_reference_kT"] for run in runs]
        summary |= {
            "abs_error_mean_kT": _mean_magnitude(errors),
            "abs_error_learned_mean_kT": _mean_magnitude(learned),
            "abs_error_max_kT": max(map(abs, errors)),
        }
    if len(compared) == len(runs):
        summary |= {
            "energy_w2_mean_kT": _mean_magnitude([run["energy_w2_kT"] for run in runs]),
            "torsion_w2_mean_rad": _mean_magnitude([run["torsion_w2_rad"] for run in runs]),
        }
    return summary | {
        "num_reliable": sum(run["reliable"] for run in runs),
        "ess_fraction_min": min(run["ess_fraction"] for run in runs),
    }


def _mean_magnitude(values: Sequence[float]) -> float:
    return math.fsum(map(abs, values)) / len(values)


def _error(metrics: Mapping[str, Any]) -> float:
    return metrics["delta_f_kT"] - metrics["delta_f_reference_kT"]


def _known(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.2f}" if name in values else "-"
