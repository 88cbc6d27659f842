"""One look for all figures: colours that survive colour blindness, sizes that survive a README."""

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

P = ParamSpec("P")

# Okabe & Ito (2008).
EMULATOR = "#0072B2"
REWEIGHTED = "#D55E00"
REFERENCE = "#222222"
ACCENT = "#009E73"
MUTED = "#8A8A8A"

# Histograms of the emulator, the reweighted emulator and the reference, in this order.
ENSEMBLES: tuple[dict[str, Any], ...] = (
    {"color": EMULATOR, "fill": True, "alpha": 0.35},
    {"color": REWEIGHTED, "linewidth": 1.8},
    {"color": REFERENCE, "linewidth": 1.2, "linestyle": "--"},
)

DPI = 150
STYLE: dict[RcKeyType, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 6.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "mathtext.fontset": "dejavusans",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a figure function draw in the project's style, whatever the global settings are."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return wrapper


def angle_axis(axis: Axes, *, which: str = "x", label: str) -> None:
    """Put ticks every 60 degrees on a dihedral axis."""
    ticks = [-120, -60, 0, 60, 120]
    settings = {
        f"{which}lim": (-180, 180),
        f"{which}ticks": ticks,
        f"{which}label": f"{label} (degrees)",
    }
    axis.set(**settings)


def note(
    axis: Axes,
    text: str,
    x: float,
    y: float,
    *,
    ha: Literal["left", "center", "right"],
    va: Literal["bottom", "top"],
) -> None:
    """Write small text, aligned to a point in axes coordinates."""
    axis.text(x, y, text, transform=axis.transAxes, fontsize=8.5, color="#333333", ha=ha, va=va)
