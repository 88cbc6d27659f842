"""The energy model's log density against the exact likelihood."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, MUTED, REFERENCE, REWEIGHTED, note, styled


@styled
def log_density_figure(exact: Array, learned: Array) -> Figure:
    """Draw learned against exact log densities, and the histogram of their difference.

    Args:
        exact: Exact log likelihoods, ``(samples,)`` [nats].
        learned: The energy model's log densities of the same samples, ``(samples,)`` [nats].
    """
    error = learned - exact
    figure = Figure(figsize=(7.2, 3.3))
    scatter, histogram = figure.subplots(1, 2)
    limits = np.quantile(np.concatenate([exact, learned]), [0.001, 0.999]) + np.array([-1, 1])
    scatter.plot(exact, learned, ".", color=EMULATOR, markersize=4, alpha=0.35, markeredgewidth=0)
    scatter.plot(limits, limits, color=REFERENCE, linewidth=1)
    scatter.set(
        title="Log density of held-out samples",
        xlabel="Exact likelihood (nats)",
        ylabel="Energy model (nats)",
        xlim=limits,
        ylim=limits,
        aspect="equal",
    )
    for axis in (scatter.xaxis, scatter.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    rmse = math.sqrt(np.square(error).mean())
    text = f"n = {len(error):,}\nRMSE {rmse:.2f} kT"
    note(scatter, text, 0.04, 0.96, ha="left", va="top")

    half_width = max(np.quantile(np.abs(error), 0.995), 1e-6)
    counts, edges = np.histogram(error, 50, range=(-half_width, half_width))
    histogram.stairs(counts, edges, fill=True, color=EMULATOR, alpha=0.45)
    histogram.axvline(0, color=MUTED, linewidth=0.9, linestyle=":")
    histogram.axvline(error.mean(), color=REWEIGHTED, linewidth=1.4)
    histogram.set(
        title="Error of the energy model", xlabel="Learned − exact (kT)", ylabel="Samples"
    )
    text = f"mean {error.mean():+.2f} kT\nsd {error.std():.2f} kT"
    note(histogram, text, 0.97, 0.96, ha="right", va="top")
    return figure
