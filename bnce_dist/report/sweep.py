"""Figures of a sweep: which settings gave which metric."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bnce_dist.report.figures import save_figure
from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, MUTED, REWEIGHTED, styled

COLOURS = "viridis_r"
# A metric that spans more than this ratio is drawn on a logarithmic scale.
LOG_RATIO = 10.0
COLUMNS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResults:
    """The trials of a sweep as columns, the best one first.

    Args:
        metric: The metric of every trial, ``(trials,)``.
        metric_name: What it is called.
        finished: Whether a trial ran to its end, ``(trials,)`` bool; the others were stopped.
        settings: Per setting its value in every trial, numbers or anything else.
        logarithmic: Names of the settings that vary over orders of magnitude.
    """

    metric: Array
    metric_name: str
    finished: np.ndarray
    settings: Mapping[str, Sequence[object]]
    logarithmic: Collection[str]


@dataclass(frozen=True)
class _Axis:
    """One setting on an axis: positions of the values, and ticks where it is no number."""

    positions: Array
    labels: tuple[str, ...]
    is_logarithmic: bool

    @classmethod
    def of(cls, name: str, sweep: SweepResults) -> "_Axis":
        values = sweep.settings[name]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return cls(np.array(values, float), (), name in sweep.logarithmic)
        labels = sorted({str(value) for value in values})
        positions = np.array([labels.index(str(value)) for value in values], float)
        return cls(positions, tuple(labels), False)

    @property
    def shares(self) -> Array:
        """Positions from 0 to 1, as on the axis."""
        scaled = np.log(self.positions) if self.is_logarithmic else self.positions
        span = np.ptp(scaled)
        return (scaled - scaled.min()) / span if span else np.full(len(scaled), 0.5)


def write_sweep_figures(folder: Path, sweep: SweepResults) -> list[Path]:
    """Draw the figures of a sweep into a folder and return their paths."""
    figures = {"parallel_coordinates": parallel_coordinates(sweep), "slices": slices(sweep)}
    paths = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        save_figure(figure, path)
    return list(paths)


@styled
def parallel_coordinates(sweep: SweepResults) -> Figure:
    """Draw every trial as a line through its settings to its metric, coloured by the metric."""
    norm = _norm(sweep.metric)
    metric_share = np.asarray(norm(sweep.metric), float)
    axes_of = [_Axis.of(name, sweep) for name in sweep.settings]
    heights = np.column_stack([*(axis.shares for axis in axes_of), metric_share])
    figure = Figure(figsize=(max(5.0, 1.7 * heights.shape[1]), 3.6))
    axis = figure.subplots()
    colours = ScalarMappable(norm, COLOURS)
    for trial in reversed(range(len(heights))):
        axis.plot(
            heights[trial],
            color=colours.to_rgba(sweep.metric[trial]) if trial else REWEIGHTED,
            linewidth=1.2 if trial else 2.4,
            linestyle="-" if sweep.finished[trial] else (0, (2, 2)),
        )
    for column, scale in enumerate(axes_of):
        _annotate(axis, column, scale)
    names = [name.rpartition(".")[2] for name in sweep.settings]
    axis.set_xticks(range(heights.shape[1]), [*names, sweep.metric_name])
    axis.set(yticks=[], ylim=(-0.09, 1.09), title="Best trial in orange; dashed: stopped early")
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.grid(axis="x", color=MUTED, linewidth=0.8)
    axis.tick_params(length=0)
    figure.colorbar(colours, ax=axis, label=sweep.metric_name)
    return figure


@styled
def slices(sweep: SweepResults) -> Figure:
    """Draw the metric against every setting in its own panel."""
    columns = min(COLUMNS, len(sweep.settings))
    rows = -(-len(sweep.settings) // columns)
    figure = Figure(figsize=(2.9 * columns + 0.4, 2.5 * rows + 0.2))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel, name in zip(panels.ravel(), sweep.settings, strict=False):
        scale = _Axis.of(name, sweep)
        for chosen, style in (
            (sweep.finished, {"color": EMULATOR, "label": "finished"}),
            (~sweep.finished, {"facecolors": "none", "edgecolors": MUTED, "label": "stopped"}),
        ):
            panel.scatter(scale.positions[chosen], sweep.metric[chosen], s=26, **style)
        panel.scatter(
            scale.positions[0],
            sweep.metric[0],
            s=90,
            marker="*",
            color=REWEIGHTED,
            label="best",
            zorder=3,
        )
        panel.set(xlabel=name)
        if scale.is_logarithmic:
            panel.set(xscale="log")
            _plain_ticks(panel.xaxis)
        if scale.labels:
            panel.set_xticks(range(len(scale.labels)), scale.labels)
            panel.margins(x=0.2)
    for panel in panels.ravel()[len(sweep.settings) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set(ylabel=sweep.metric_name)
        if isinstance(_norm(sweep.metric), LogNorm):
            panel.set(yscale="log")
            _plain_ticks(panel.yaxis)
    panels[0, 0].legend(loc="best")
    return figure


def _norm(metric: Array) -> Normalize:
    low, high = float(metric.min()), float(metric.max())
    return (LogNorm if low > 0 and high > LOG_RATIO * low else Normalize)(low, high)


def _plain_ticks(axis: XAxis | YAxis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _annotate(axis: Axes, column: int, scale: _Axis) -> None:
    """Write the values at the ends of a vertical axis, or all of them if they are words."""
    ends = (scale.positions.min(), scale.positions.max())
    marks = {0.0: f"{ends[0]:.3g}", 1.0: f"{ends[1]:.3g}"}
    if scale.labels:
        last = max(len(scale.labels) - 1, 1)
        marks = {index / last: label for index, label in enumerate(scale.labels)}
    for height, text in marks.items():
        outside = {0.0: "top", 1.0: "bottom"}
        place = outside.get(height, "center") if not scale.labels else "center"
        axis.annotate(
            text, (column, height), (4, 0), textcoords="offset points", va=place, fontsize=8
        )
