"""The free energies of many molecules against their references."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnce_dist.report.style import MUTED, REFERENCE, REWEIGHTED, styled

HEIGHT_PER_MOLECULE = 0.42
NUM_LINES = 60
"""Of more molecules than this, names can no longer be read."""


def fleet_figure(runs: Mapping[str, Mapping[str, Any]], published: Mapping[str, float]) -> Figure:
    """Draw results with their intervals, and what they should be.

    Args:
        runs: ``metrics.json`` of every finished molecule, by name.
        published: Free energies known from elsewhere, by name [kT]; many molecules go without.

    Returns: One line per molecule; of very many, one point.
    """
    return line_by_line(runs, published) if len(runs) <= NUM_LINES else against_references(runs)


@styled
def against_references(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the result of every molecule that has a reference over it, the reliable ones apart."""
    figure = Figure(figsize=(6.4, 6.0))
    axis = figure.subplots()
    runs = {name: run for name, run in runs.items() if run["delta_f_reference_kT"] is not None}
    for reliable, label, colour in ((True, "Reliable", REWEIGHTED), (False, "Not reliable", MUTED)):
        chosen = [run for run in runs.values() if bool(run["reliable"]) is reliable]
        values = np.array([run["delta_f_kT"] for run in chosen])
        bounds = np.array([run["delta_f_interval_kT"] for run in chosen]).reshape(-1, 2)
        axis.errorbar(
            [run["delta_f_reference_kT"] for run in chosen],
            values,
            xerr=[1.96 * run["delta_f_reference_stderr_kT"] for run in chosen],
            yerr=np.maximum([values - bounds[:, 0], bounds[:, 1] - values], 0.0),
            fmt="o", markersize=3, elinewidth=0.5, color=colour, label=f"{label}: {len(chosen)}",
        )  # fmt: skip
    low, high = axis.get_xlim()
    axis.plot([low, high], [low, high], color=REFERENCE, linewidth=1, label="Equal")
    axis.set(
        title="Free energy of the state against the rest",
        xlabel="Reference Δf (kT)",
        ylabel="Δf with its 95 % interval (kT)",
        xlim=(low, high),
    )
    axis.legend()
    return figure


@styled
def line_by_line(runs: Mapping[str, Mapping[str, Any]], published: Mapping[str, float]) -> Figure:
    """Draw one line per molecule."""
    figure = Figure(figsize=(6.4, 1.2 + HEIGHT_PER_MOLECULE * len(runs)))
    axis = figure.subplots()
    names = list(runs)
    places = {name: len(names) - 1 - index for index, name in enumerate(names)}
    for name, run in runs.items():
        low, high = run["delta_f_interval_kT"]
        value = run["delta_f_kT"]
        first = places[name] == 0
        axis.errorbar(
            value, places[name] + 0.12, xerr=[[value - low], [high - value]], fmt="o",
            color=REWEIGHTED, capsize=3, label="This run (95 % interval)" if first else None,
        )  # fmt: skip
        if (expected := run["delta_f_reference_kT"]) is None:
            continue
        axis.errorbar(
            expected, places[name] - 0.12, xerr=1.96 * run["delta_f_reference_stderr_kT"],
            fmt="s", color=REFERENCE, capsize=3,
            label="Reference (umbrella sampling)" if first else None,
        )  # fmt: skip
    known = [name for name in names if name in published]
    axis.plot(
        [published[name] for name in known], [places[name] for name in known], "D",
        color=MUTED, markersize=4, label="Published MD (1 µs, no error bar)" if known else None,
    )  # fmt: skip
    axis.set(
        title="Free energy of the state against the rest",
        xlabel="Δf (kT)",
        yticks=list(places.values()),
        yticklabels=names,
        ylim=(-0.6, len(names) - 0.4),
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
