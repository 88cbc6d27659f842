"""Potential energies: emulator, reweighted emulator, molecular dynamics."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array
from bnce_dist.report.style import ENSEMBLES, styled

_HEADROOM = 2.0
"""Height of the axis, in units of the last ensemble's highest bin."""


@styled
def energy_figure(ensembles: Mapping[str, tuple[Array, Array]], *, num_bins: int = 70) -> Figure:
    """Draw normalised histograms of the reduced potential.

    The last ensemble sets the axes, since one clash, or one sample that has all the weight, would
    stretch them beyond use; the legend says how much of each lies to the right.

    Args:
        ensembles: Up to three times a name and ``(energies_kT, log_weights)``, each
            ``(samples,)`` [kT, nats]; an energy may be infinite.
        num_bins: Bins.
    """
    low, high = _bulk(*list(ensembles.values())[-1])
    # One sample may have all the weight.
    margin = max(0.05 * (high - low), 0.5)
    edges = np.linspace(low - margin, high + 3 * margin, num_bins + 1)
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    highest = 0.0
    for (name, (energies, log_weights)), style in zip(ensembles.items(), ENSEMBLES, strict=False):
        weights = Weights(log_weights).normalised
        beyond = weights[energies > edges[-1]].sum()
        label = f"{name} ({100 * beyond:.1f} % beyond the axis)" if beyond >= 0.0005 else name
        mass, _ = np.histogram(energies, edges, weights=weights)
        density = mass / np.diff(edges)
        axis.stairs(density, edges, label=label, **style)
        highest = density.max()
    axis.set(
        xlabel="Reduced potential u (kT)",
        ylabel="Probability density (1/kT)",
        xlim=(edges[0], edges[-1]),
        ylim=(0, _HEADROOM * highest),
        title="Potential energy of the samples",
    )
    axis.legend(loc="upper right")
    return figure


def _bulk(energies: Array, log_weights: Array) -> Array:
    """Return the ends of the range that holds 99.9 % of the weight."""
    order = energies.argsort()
    below = Weights(log_weights).normalised[order].cumsum()
    places = np.searchsorted(below, np.array([0.0005, 0.9995]) * below[-1])
    return energies[order][places]
