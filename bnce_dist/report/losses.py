"""Loss curves of the training stages."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.ndimage import gaussian_filter1d

from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, REWEIGHTED, styled

COLOURS = (EMULATOR, REWEIGHTED)
# A curve that spans less than this ratio reads better on a linear axis.
LOG_RATIO = 5.0
TITLES = {
    "emulator": "Emulator",
    "energy": "Energy model",
    "infonce": "InfoNCE",
    "score": "score matching",
}


@styled
def loss_figure(losses: Mapping[str, Mapping[str, Array]], *, smoothing: float = 0.02) -> Figure:
    """Draw every loss term of every stage in its own panel, raw and smoothed.

    Args:
        losses: Per stage the array ``"step"`` and terms of the same length by name.
        smoothing: Width of the Gaussian filter as a share of the curve.
    """
    terms = [
        (stage, term, colour)
        for (stage, history), colour in zip(losses.items(), COLOURS, strict=False)
        for term in sorted(history.keys() - {"step"}, key=lambda term: (term != "loss", term))
    ]
    columns = min(2, len(terms))
    rows = -(-len(terms) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.35 * rows + 0.2))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (stage, term, colour) in zip(axes, terms, strict=False):
        history = losses[stage]
        _draw(axis, history["step"], history[term], colour, smoothing)
        axis.set(title=f"{TITLES.get(stage, stage)}: {TITLES.get(term, term)}")
    for axis in axes[len(terms) :]:
        axis.set_axis_off()
    for axis in axes[len(terms) - columns : len(terms)]:
        axis.set(xlabel="Step")
    return figure


def _draw(axis: Axes, steps: Array, values: Array, colour: str, smoothing: float) -> None:
    axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    logarithmic = values.min() > 0 and values.max() > LOG_RATIO * values.min()
    scaled = np.log(values) if logarithmic else values
    smooth = gaussian_filter1d(scaled, max(smoothing * len(values), 1e-3), mode="nearest")
    axis.plot(steps, np.exp(smooth) if logarithmic else smooth, color=colour)
    axis.set(xlim=(0, steps[-1]))
    if logarithmic:
        axis.set(yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
