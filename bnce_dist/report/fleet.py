"""The free energies of many molecules against their references."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bnce_dist.report.style import MUTED, REFERENCE, REWEIGHTED, styled

HEIGHT_PER_MOLECULE = 0.42


@styled
def fleet_figure(runs: Mapping[str, Mapping[str, Any]], published: Mapping[str, float]) -> Figure:
    """Draw one line per molecule: the result with its interval, and what it should be.

    Args:
        runs: ``metrics.json`` of every finished molecule, by name.
        published: Free energies known from elsewhere, by name [kT].
    """
    figure = Figure(figsize=(6.4, 1.2 + HEIGHT_PER_MOLECULE * len(runs)))
    axis = figure.subplots()
    names = list(runs)
    places = {name: len(names) - 1 - index for index, name in enumerate(names)}
    for name, run in runs.items():
        low, high = run["delta_f_interval_kT"]
        value = run["delta_f_kT"]
        error, expected = run["delta_f_reference_stderr_kT"], run["delta_f_reference_kT"]
        first = places[name] == 0
        axis.errorbar(
            value, places[name] + 0.12, xerr=[[value - low], [high - value]], fmt="o",
            color=REWEIGHTED, capsize=3, label="This run (95 % interval)" if first else None,
        )  # fmt: skip
        axis.errorbar(
            expected, places[name] - 0.12, xerr=1.96 * error, fmt="s", color=REFERENCE,
            capsize=3, label="Reference (umbrella sampling)" if first else None,
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
