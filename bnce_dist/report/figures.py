"""Draw and write all figures of a run."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bnce_dist.core.metrics import free_energy_profile
from bnce_dist.core.weights import Weights
from bnce_dist.data.atomic import atomic_path
from bnce_dist.report.energies import energy_figure
from bnce_dist.report.histograms import replica_profile
from bnce_dist.report.log_density import log_density_figure
from bnce_dist.report.losses import loss_figure
from bnce_dist.report.profile import profile_figure
from bnce_dist.report.ramachandran import ramachandran_figure
from bnce_dist.report.results import RunResults
from bnce_dist.report.style import DPI
from bnce_dist.report.temperatures import temperature_figure
from bnce_dist.report.torsions import torsion_figure
from bnce_dist.report.weights import weights_figure


def write_figures(folder: str | Path, results: RunResults) -> list[Path]:
    """Write the figures of a run as PNG files, each whole or not at all.

    Args:
        folder: Where they go; it is created.
        results: The run.

    Returns: The files' paths.
    Raises: InputError: the folder cannot be written or the disk is full.
    """
    paths = []
    for name, figure in draw_figures(results).items():
        path = Path(folder) / f"{name}.png"
        save_figure(figure, path)
        paths.append(path)
    return paths


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises: InputError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def draw_figures(results: RunResults) -> dict[str, Figure]:
    """Return the figures of a run by name; without any weight, those that need none."""
    of_models = {
        "losses": loss_figure(results.losses),
        "log_density": log_density_figure(results.log_density_exact, results.log_density_learned),
    }
    labels = results.torsion_labels
    unweighted, reference = np.zeros_like(results.log_weights), results.reference
    torsions = {
        "Emulator": (results.phi, results.psi, unweighted),
        "Reweighted": (results.phi, results.psi, results.log_weights),
    }
    energies = {
        "Emulator": (results.reduced_potential, unweighted),
        "Reweighted": (results.reduced_potential, results.log_weights),
    }
    if reference is not None:
        torsions["Reference"] = (reference.phi, reference.psi, reference.log_weights)
    if (simulated := results.simulated) is not None:
        energies["Molecular dynamics"] = (simulated.reduced_potential, simulated.log_weights)
    if results.delta_f_kT is None or results.delta_f_stderr_kT is None:
        del torsions["Reweighted"]
        return {
            "ramachandran": ramachandran_figure(torsions, state=results.state, labels=labels),
            **of_models,
        }
    delta_f = (results.delta_f_kT, results.delta_f_stderr_kT)
    figures = {
        "ramachandran": ramachandran_figure(torsions, state=results.state, labels=labels),
        "free_energy_profile": _profile(results, delta_f),
        "energies": energy_figure(energies),
        "torsions": torsion_figure(torsions, labels=labels),
        "losses": of_models["losses"],
        "weights": weights_figure(
            Weights(results.log_weights), results.tails, clip_fraction=results.clip_fraction
        ),
        "log_density": of_models["log_density"],
    }
    if results.temperatures:
        figures["temperatures"] = temperature_figure(results.temperatures)
    return figures


def _profile(results: RunResults, delta_f: tuple[float, float]) -> Figure:
    reference, expected = None, None
    if (frames := results.reference) is not None:
        reference = replica_profile(
            frames.phi, frames.log_weights, frames.replica, seed=results.seed
        )
    if results.delta_f_reference_kT is not None and results.delta_f_reference_stderr_kT is not None:
        expected = (results.delta_f_reference_kT, results.delta_f_reference_stderr_kT)
    weights = Weights(results.log_weights).normalised
    return profile_figure(
        free_energy_profile(results.phi, weights, seed=results.seed),
        reference,
        free_energy_profile(results.phi, seed=results.seed),
        delta_f=delta_f,
        delta_f_reference=expected,
        state=results.state.interval,
        label=results.torsion_labels[0],
        reference_method=results.reference_method,
    )
