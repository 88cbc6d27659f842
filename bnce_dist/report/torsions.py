"""Torsions one by one: emulator, reweighted emulator, reference."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array
from bnce_dist.report.style import ENSEMBLES, angle_axis, styled


@styled
def torsion_figure(
    ensembles: Mapping[str, tuple[Array, Array, Array]],
    *,
    num_bins: int = 72,
    labels: tuple[str, str] = ("φ", "ψ"),
) -> Figure:
    """Draw normalised histograms of phi and psi.

    Args:
        ensembles: Up to three times a name and ``(phi, psi, log_weights)``, each ``(samples,)``
            [rad, rad, nats].
        num_bins: Bins over the circle.
        labels: What the two are called.
    """
    edges = np.linspace(-180, 180, num_bins + 1)
    figure = Figure(figsize=(7.2, 3.1))
    panels = figure.subplots(1, 2)
    for index, (axis, label) in enumerate(zip(panels, labels, strict=True)):
        for (name, columns), style in zip(ensembles.items(), ENSEMBLES, strict=False):
            weights = Weights(columns[2]).normalised
            mass, _ = np.histogram(np.degrees(columns[index]), edges, weights=weights)
            axis.stairs(mass / np.diff(edges), edges, label=name, **style)
        axis.set(ylim=(0, None))
        angle_axis(axis, label=label)
    panels[0].set(ylabel="Probability density (1/degree)", title="Torsions")
    panels[1].legend(loc="upper left")
    return figure
