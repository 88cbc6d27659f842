"""Where the backbone is: free energy over phi and psi, panel by panel on one scale."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from bnce_dist.chem.state import POSITIVE_PHI, State
from bnce_dist.core.weights import Weights
from bnce_dist.report.histograms import free_energy_surface
from bnce_dist.report.results import Array
from bnce_dist.report.style import REFERENCE, angle_axis, styled

COLOURS = "viridis_r"
CAP_KT = 8
_OUTLINE_POINTS = 721


@styled
def ramachandran_figure(
    panels: Mapping[str, tuple[Array, Array, Array]],
    *,
    state: State | None = POSITIVE_PHI,
    num_bins: int = 48,
    labels: tuple[str, str] = ("φ", "ψ"),
) -> Figure:
    """Draw free energies over the two dihedrals side by side, each above its minimum.

    Bins above 8 kT stay white, like those without samples.

    Args:
        panels: Title to ``(phi, psi, log_weights)``, each ``(samples,)`` [rad, rad, nats].
        state: It is outlined and its weight printed; none if None.
        num_bins: Bins per angle.
        labels: What the two are called.
    """
    figure = Figure(figsize=(2.75 * len(panels) + 0.9, 3.2), layout="compressed")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    edges = np.linspace(-180, 180, num_bins + 1)
    norm = BoundaryNorm(np.arange(0, CAP_KT + 0.5, 0.5), 256)
    for axis, (title, (phi, psi, log_weights)) in zip(axes, panels.items(), strict=True):
        surface = free_energy_surface(phi, psi, log_weights, num_bins)
        shown = np.where(surface < CAP_KT, surface, np.nan)
        axis.pcolormesh(edges, edges, shown.T, cmap=COLOURS, norm=norm)
        axis.set(title=title, aspect="equal")
        angle_axis(axis, which="x", label=labels[0])
        if state is None:
            continue
        _outline(axis, state)
        share = 100 * Weights(log_weights).normalised[state.contains(phi, psi)].sum()
        axis.set_title(f"{share:.1f} % in state", loc="right", fontsize=8.5, color="#333333")
    angle_axis(axes[0], which="y", label=labels[1])
    scale = ScalarMappable(norm, COLOURS)
    bar = figure.colorbar(scale, ax=axes, pad=0.015, ticks=range(0, CAP_KT + 1, 2))
    bar.set_label("Free energy (kT)")
    return figure


def _outline(axis: Axes, state: State) -> None:
    """Draw the border of the state."""
    degrees = np.linspace(-180, 180, _OUTLINE_POINTS)
    phi, psi = np.radians(degrees)[:, None], np.radians(degrees)[None, :]
    inside = state.contains(phi, psi).astype(float)
    axis.contour(
        degrees, degrees, inside.T, levels=[0.5], colors=[REFERENCE], linewidths=0.9,
        linestyles=[(0, (4, 3))],
    )  # fmt: skip
