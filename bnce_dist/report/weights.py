"""Whether the importance weights can be trusted: their spread, tail and concentration."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import boxcox

from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, MUTED, REFERENCE, REWEIGHTED, note, styled


@styled
def weights_figure(weights: Weights, *, clip_fraction: float = 0.002) -> Figure:
    """Draw the histogram of log weights, the tail with its Pareto fit, and the shares of weight.

    Weights are drawn relative to their mean: 1 is what equal weights would be.

    Args:
        weights: Unclipped, of independent samples.
        clip_fraction: Share of the samples whose weight clipping lowers.
    """
    clipped, report = weights.clipped(clip_fraction)
    relative = np.sort(weights.normalised)[::-1] * weights.num_samples
    threshold = relative[0] * math.exp(report.log_threshold - weights.log_weights.max())
    figure = Figure(figsize=(9.2, 3.1))
    histogram, tail, share = figure.subplots(1, 3)
    line: dict[str, Any] = {"color": REWEIGHTED, "linestyle": "--", "linewidth": 1.2}
    _draw_histogram(histogram, relative)
    histogram.axvline(math.log(threshold), **line)
    tail.axhline(threshold, **line, label=f"Clip, top {100 * clip_fraction:g} %")
    _draw_tail(tail, relative, weights.pareto_k)
    _draw_share(share, relative)
    lines = (
        f"n = {weights.num_samples:,}",
        f"ESS {100 * weights.ess_fraction:.1f} %",
        f"clipped {100 * clipped.ess_fraction:.1f} %",
    )
    note(share, "\n".join(lines), 0.96, 0.05, ha="right", va="bottom")
    return figure


def _draw_histogram(axis: Axes, relative: Array) -> None:
    # The smallest weights, which sum to 0.01 %, would take most of the axis.
    num_shown = np.searchsorted(np.cumsum(relative) / len(relative), 0.9999) + 1
    log_relative = np.log(relative[:num_shown])
    edges = np.linspace(log_relative[-1], log_relative[0], 61)
    counts, _ = np.histogram(log_relative, edges)
    axis.stairs(counts, edges, fill=True, color=EMULATOR, alpha=0.45)
    axis.set(title="Log weights", xlabel="ln (weight / mean weight)", ylabel="Samples")


def _draw_tail(axis: Axes, relative: Array, pareto_k: float) -> None:
    """Draw weight against rank, where a Pareto tail becomes a straight line of slope -k."""
    num_samples = len(relative)
    tail_size = math.ceil(min(0.2 * num_samples, 3 * math.sqrt(num_samples)))
    exceeded = (np.arange(tail_size) + 0.5) / tail_size
    cutoff = relative[tail_size]
    scale = np.median(relative[:tail_size] - cutoff) / boxcox(2, pareto_k)
    fit = cutoff + scale * boxcox(1 / exceeded, pareto_k)
    rank = np.arange(1, num_samples + 1)
    axis.loglog(rank, relative, ".", color=EMULATOR, markersize=3.5)
    axis.loglog(rank[:tail_size], fit, color=REFERENCE, label=f"Pareto fit, k = {pareto_k:.2f}")
    axis.set(
        title="Largest weights",
        xlabel="Rank",
        ylabel="Weight / mean weight",
        ylim=(relative[min(20 * tail_size, num_samples // 2)], 2 * relative[0]),
    )
    axis.legend(loc="lower left")


def _draw_share(axis: Axes, relative: Array) -> None:
    samples = 100 * np.arange(1, len(relative) + 1) / len(relative)
    axis.plot(samples, 100 * np.cumsum(relative) / relative.sum(), color=EMULATOR)
    axis.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=":")
    axis.set(
        title="Share of the total weight",
        xlabel="Largest weights (% of samples)",
        ylabel="Cumulative weight (%)",
        xlim=(0, 100),
        ylim=(0, 102),
    )
