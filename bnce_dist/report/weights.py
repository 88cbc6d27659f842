"""Whether the importance weights can be trusted: their spread, tail and concentration."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import boxcox

from bnce_dist.core.tails import fit_tail
from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, MUTED, REWEIGHTED, note, styled


@styled
def weights_figure(
    weights: Weights,
    tails: Mapping[str, tuple[Array, Array]],
    *,
    clip_fraction: float = 0.002,
) -> Figure:
    """Draw the histogram of log weights, the tails with their Pareto fits, and shares of weight.

    Weights are drawn relative to their mean: 1 is what equal weights would be.

    Args:
        weights: Unclipped, of independent samples.
        tails: By name of each side of the state, exact log weights and how many of its samples each
            stands for, ``(exact,)``: what the verdict is of.
        clip_fraction: Share of the samples whose weight clipping lowers.
    """
    clipped, report = weights.clipped(clip_fraction)
    relative = np.sort(weights.normalised)[::-1] * weights.num_samples
    threshold = math.log(relative[0]) + report.log_threshold - weights.log_weights.max()
    figure = Figure(figsize=(9.2, 3.1))
    histogram, tail, share = figure.subplots(1, 3)
    _draw_histogram(histogram, relative)
    label = f"Clip, top {100 * clip_fraction:g} %"
    histogram.axvline(threshold, color=REWEIGHTED, linestyle="--", linewidth=1.2, label=label)
    histogram.legend(loc="upper left")
    histogram.set_ylim(top=1.2 * histogram.get_ylim()[1])
    for colour, (side, population) in zip((REWEIGHTED, EMULATOR), tails.items(), strict=False):
        _draw_tail(tail, side, colour, *population)
    tail.set(title="Largest exact weights", xlabel="Rank", ylabel="Weight / mean of its side")
    if tails:
        tail.legend(loc="upper right")
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


def _draw_tail(axis: Axes, side: str, colour: str, log_weights: Array, counts: Array) -> None:
    """Draw weight against rank, where a Pareto tail becomes a straight line of slope -k."""
    order = np.argsort(-log_weights, kind="stable")
    log_weights, counts = log_weights[order], counts[order]
    scaled, num_samples = np.exp(log_weights - log_weights[0]), float(counts.sum())
    relative = scaled * num_samples / (scaled @ counts)
    # Of several samples that one stands for, half weigh more, half less.
    heavier = np.cumsum(counts) - counts / 2
    tail_size = min(0.2 * num_samples, 3 * math.sqrt(num_samples))
    shown = (heavier <= min(20 * tail_size, num_samples / 2)) & (relative > 0)
    points: dict[str, Any] = {"color": colour, "markersize": 3.5, "alpha": 0.5}
    axis.loglog(heavier[shown] + 0.5, relative[shown], ".", **points)
    if (fitted := fit_tail(log_weights, counts)) is None:
        axis.plot([], [], color=colour, label=f"{side}: no tail to fit")
        return
    in_tail = heavier < tail_size
    cutoff = relative[np.count_nonzero(in_tail)]
    exceedances = relative[in_tail] - cutoff
    positive = np.repeat(exceedances, np.rint(counts[in_tail]).astype(int))
    positive = positive[positive > 0]
    scale = np.median(positive) / boxcox(2, fitted.shape) if len(positive) else 0.0
    quantiles = cutoff + scale * boxcox(tail_size / heavier[in_tail], fitted.shape)
    label = f"{side}: Pareto fit, k = {fitted.shape:.2f}"
    axis.loglog(heavier[in_tail] + 0.5, quantiles, color=colour, label=label)


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
