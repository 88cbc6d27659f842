"""Densities in the plane: the true one, the learned ones and samples, a row per system."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, note, styled

COLOURS = "magma"
TITLES = {"infonce": "InfoNCE", "score": "Score matching", "hybrid": "Hybrid"}
# A few sharp peaks of a bad model must not darken everything else.
CAP_RATIO = 1.25


@dataclass(frozen=True, eq=False)
class DensityRow:
    """What is known of one system.

    Args:
        system: Its name.
        half_width: The square is ``[-half_width, half_width]^2``.
        true: Log density on the grid, first coordinate first, ``(cells, cells)`` [nats].
        learned: Title to log density, up to a constant, ``(cells, cells)`` [nats].
        divergences: Title to the divergence that is printed beside it [nats].
        samples: Of the learned score's ODE, ``(samples, 2)``.
    """

    system: str
    half_width: float
    true: Array
    learned: Mapping[str, Array]
    divergences: Mapping[str, float]
    samples: Array


@styled
def density_figure(rows: Sequence[DensityRow]) -> Figure:
    """Draw the true density, every learned density and samples side by side.

    All densities of a row are normalised on the grid and share one colour scale.

    Args:
        rows: One per system; a density that another row lacks leaves a gap there.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row.learned))
    num_columns = len(titles) + 2
    figure = Figure(figsize=(1.9 * num_columns + 0.3, 2.0 * len(rows) + 0.15), layout="compressed")
    axes = figure.subplots(len(rows), num_columns, squeeze=False, sharex=True, sharey=True)
    for row, line in zip(rows, axes, strict=True):
        true, *learned, samples = line
        cap = CAP_RATIO * _normalised(row.true).max()
        _draw_density(true, row, row.true, cap)
        for axis, title in zip(learned, titles, strict=True):
            if title in row.learned:
                _draw_density(axis, row, row.learned[title], cap)
                text = f"KL {row.divergences[title]:.4f}"
                note(axis, text, 0.5, -0.03, ha="center", va="top")
            else:
                axis.set_axis_off()
        _draw_samples(samples, row)
        true.set_ylabel(row.system)
    for axis, title in zip(axes[0], ["True", *titles, "Samples by ODE"], strict=True):
        axis.set_title(TITLES.get(title, title))
    return figure


def _draw_density(axis: Axes, row: DensityRow, log_density: Array, cap: float) -> None:
    extent = (-row.half_width, row.half_width, -row.half_width, row.half_width)
    # The first coordinate runs to the right, which is the second index of an image.
    image = _normalised(log_density).T
    axis.imshow(image, cmap=COLOURS, vmin=0, vmax=cap, extent=extent, origin="lower")
    _strip(axis)


def _draw_samples(axis: Axes, row: DensityRow) -> None:
    x, y = row.samples.T
    axis.scatter(x, y, s=2.0, linewidth=0, color=EMULATOR, rasterized=True)
    axis.set(xlim=(-row.half_width, row.half_width), ylim=(-row.half_width, row.half_width))
    axis.set_aspect("equal")
    _strip(axis)


def _strip(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _normalised(log_density: Array) -> Array:
    """Return probabilities of the cells."""
    weights = np.exp(log_density - log_density.max())
    return weights / weights.sum()
