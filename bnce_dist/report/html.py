"""The report of a run, or of a fleet: one HTML file that needs nothing else, not even a network."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from bnce_dist.data.atomic import atomic_path
from bnce_dist.report.estimates import estimate_figure
from bnce_dist.report.results import reference_method
from bnce_dist.report.style import DPI

Row = tuple[str, str]

CAPTIONS: Mapping[str, tuple[str, str]] = {
    "ramachandran": (
        "Where the molecule is",
        "Free energy over the two torsions. The weights turn the emulator's panel into the"
        " reweighted one, which should look like the reference. Dashed lines bound the state.",
    ),
    "free_energy_profile": (
        "Free energy along the first torsion",
        "Below, if there is a reference: the difference to it. Bands hold 95 % of bootstrap"
        " replicates.",
    ),
    "temperatures": (
        "Other temperatures",
        "The same samples annealed to each of them, and what the free energy is made of: mean"
        " potential energies and entropies. Implicit water counts as energy.",
    ),
    "torsions": ("Torsions", "The same torsions one by one."),
    "energies": (
        "Potential energy",
        "Reweighted samples should have the energies of molecular dynamics.",
    ),
    "weights": (
        "Importance weights",
        "Few samples must not hold most of the weight. The tails are of weights by exact"
        " likelihoods, on each side of the state: what one may hide is in the interval; from k = 1"
        " on it has no mean.",
    ),
    "log_density": (
        "Energy model against exact likelihood",
        "The exact likelihood integrates a divergence along the flow and costs thousands of times"
        " more; it checks the energy model on some of the samples.",
    ),
    "losses": ("Training", "Raw and smoothed losses of the two models."),
}
"""Title and explanation of every figure of a run, in the order of the report."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunReport:
    """What the report of a run is made of.

    Args:
        name: Of the run.
        molecule: Its name.
        metrics: Content of ``metrics.json``.
        settings: Every setting by its dotted name.
        figures: Image files; their names without suffix are the keys of `CAPTIONS`.
        structures: What `conformations.structures` returns.
    """

    name: str
    molecule: str
    metrics: Mapping[str, Any]
    settings: Mapping[str, Any]
    figures: Sequence[Path]
    structures: Mapping[str, Any]


def write_run_report(path: Path, report: RunReport) -> Path:
    """Write the report of a run, whole or not at all.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    metrics, method = report.metrics, reference_method(report.settings)
    images = {figure.stem: data_uri(figure.read_bytes()) for figure in report.figures}
    values = {
        "report": report,
        "metrics": metrics,
        "state": state_text(report.settings),
        "verdict": metrics.get("verdict"),
        "delta_f": value_text(metrics, "delta_f"),
        "reference": value_text(metrics, "delta_f_reference"),
        "reference_method": method,
        "estimates": _is_estimate(metrics) and data_uri(_png(_estimates(metrics, method))),
        "diagnostics": diagnostics(metrics),
        "figures": [
            (title, caption, images[name])
            for name, (title, caption) in CAPTIONS.items()
            if name in images
        ],
    }
    return _write(path, "run.html.jinja", values)


def write_fleet_report(
    path: Path,
    runs: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    figure: Path | None,
) -> Path:
    """Write the report of a fleet, which links to those of its members.

    Args:
        path: The file; members' folders are beside it.
        runs: ``metrics.json`` of every finished molecule, by name.
        failures: Why the others failed.
        figure: Image of all free energies; None if there are none.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    values = {
        "name": path.parent.name,
        "runs": runs,
        "failures": failures,
        "figure": figure and data_uri(figure.read_bytes()),
    }
    return _write(path, "fleet.html.jinja", values)


def diagnostics(metrics: Mapping[str, Any]) -> list[Row]:
    """Return the numbers behind a verdict with their meaning in words."""
    num_samples = metrics["ess_num_samples"]
    return [
        ("Samples", f"{num_samples:,}, of them {metrics['num_in_state']:,} in the state"),
        (
            "Rejected samples",
            f"{metrics['num_rejected']:,}: {metrics['num_invalid']:,} no molecule,"
            f" {metrics['num_wrong_chirality']:,} of the wrong chirality;"
            # Version 0.1 never inverted a sample.
            f" {metrics.get('num_mirrored', 0):,} mirror images were inverted",
        ),
        *(_of_weights(metrics) if _is_estimate(metrics) else []),
        (
            "Error of the energy model",
            f"{metrics['log_density_rmse_kT']:.2f} kT rms against"
            f" {metrics['log_density_num_samples']:,} exact likelihoods,"
            f" {metrics['speedup_over_exact']:,.0f} times faster for one more sample",
        ),
        ("Reference of this run", metrics["delta_f_reference_run_reason"]),
        *_comparison(metrics),
    ]


def _is_estimate(metrics: Mapping[str, Any]) -> bool:
    """Return whether there is a free energy; without any weight there is none."""
    return metrics["delta_f_kT"] is not None


def _of_weights(metrics: Mapping[str, Any]) -> list[Row]:
    return [
        ("Weight of the state", f"{metrics['weight_in_state']:.2%}"),
        (
            "Effective samples",
            f"{metrics['ess_fraction']:.3f} of all, {metrics['ess_fraction_clipped']:.3f} with"
            f" {metrics['clip_fraction']:.1%} clipped",
        ),
        *_annealing(metrics),
        ("Pareto k, the worse side", f"{metrics['pareto_k']:.2f}"),
        *(_distances(metrics) if "energy_w2_kT" in metrics else []),
    ]


def _annealing(metrics: Mapping[str, Any]) -> list[Row]:
    if "annealing_num_levels" not in metrics:
        return []
    acceptance = metrics["annealing_acceptance"]
    at_limit = metrics.get("annealing_num_levels_at_limit", 0)
    too_long = f" ({at_limit} of them longer than asked: max_levels lets none be shorter)"
    text = (
        f"{metrics['annealing_num_levels']} levels{too_long if at_limit else ''}, of whose moves"
        f" {min(acceptance):.0%} to {max(acceptance):.0%} were accepted"
    )
    if (before := metrics["ess_fraction_one_step"]) is not None:
        text += f"; without it {before:.3f} of the samples were effective"
    return [("Annealing", text)]


def _distances(metrics: Mapping[str, Any]) -> list[Row]:
    return [
        (
            "Distance of energies (W2)",
            f"{metrics['energy_w2_emulator_kT']:.2f} kT before, {metrics['energy_w2_kT']:.2f} kT"
            f" after reweighting{_by_learned_weights(metrics)}{_between_halves(metrics)}",
        ),
        (
            "Distance of torsions (W2)",
            f"{metrics['torsion_w2_emulator_rad']:.2f} rad before,"
            f" {metrics['torsion_w2_rad']:.2f} rad after;"
            f" {metrics['torsion_w2_baseline_rad']:.2f} rad between two draws of the reference",
        ),
    ]


def _by_learned_weights(metrics: Mapping[str, Any]) -> str:
    learned = metrics.get("energy_w2_learned_kT")
    return "" if learned is None else f", {learned:.2f} kT by learned densities alone"


def _between_halves(metrics: Mapping[str, Any]) -> str:
    baseline = metrics.get("energy_w2_baseline_kT")
    return "" if baseline is None else f"; {baseline:.2f} kT between two halves of the simulation"


def value_text(metrics: Mapping[str, Any], name: str) -> str:
    """Return a free energy with its standard error, if there is one."""
    if metrics[f"{name}_kT"] is None:
        return "none"
    return f"{metrics[f'{name}_kT']:.2f} ± {metrics[f'{name}_stderr_kT']:.2f} kT"


def state_text(settings: Mapping[str, Any]) -> str:
    """Return what the state is, by the settings of a run."""
    if settings.get("target.state"):
        return f"{settings['target.state']} (rad)"
    return f"{settings['target.state_phi_min']} < φ < {settings['target.state_phi_max']} rad"


def data_uri(png: bytes) -> str:
    """Return an image as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _comparison(metrics: Mapping[str, Any]) -> list[Row]:
    if "predecessor" not in metrics:
        return []
    before = metrics["predecessor"]
    error = before["delta_f_error_kT"] + metrics["delta_f_error_change_kT"]
    text = (
        f"{before['run']}: error {before['delta_f_error_kT']:.2f} kT,"
        f" {before['ess_fraction']:.3f} effective; now {error:.2f} kT,"
        f" {metrics['ess_fraction']:.3f}"
    )
    return [("Model before this one", text)]


def _estimates(metrics: Mapping[str, Any], method: str) -> Figure:
    def estimate(label: str, name: str) -> tuple[str, float, float]:
        return label, metrics[f"{name}_kT"], metrics[f"{name}_stderr_kT"]

    references = []
    if metrics["delta_f_reference_source"] not in ("this run", None):
        references.append(estimate("Umbrella sampling, long", "delta_f_reference"))
    if metrics["delta_f_reference_run_kT"] is not None:
        references.append(estimate(f"{method.capitalize()}, this run", "delta_f_reference_run"))
    estimates = [
        estimate("Result", "delta_f"),
        estimate("Energy model alone", "delta_f_learned"),
    ]
    if metrics["delta_f_exact_kT"] is not None:
        estimates.append(estimate("Exact likelihood alone", "delta_f_exact"))
    if "delta_f_bennett_kT" in metrics:
        estimates.append(estimate("Exact, with MD frames (BAR)", "delta_f_bennett"))
    return estimate_figure(references, estimates)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _write(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    environment = Environment(
        loader=PackageLoader("bnce_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["value_text"] = value_text
    with atomic_path(path) as temporary:
        temporary.write_text(environment.get_template(template).render(values), encoding="utf-8")
    return path
