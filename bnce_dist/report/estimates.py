"""One free energy by several routes, on one axis."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from bnce_dist.report.style import EMULATOR, REFERENCE, REWEIGHTED, styled

# Half a 95 % interval in standard errors.
NORMAL_95 = 1.96


@styled
def estimate_figure(
    references: Sequence[tuple[str, float, float]], estimates: Sequence[tuple[str, float, float]]
) -> Figure:
    """Draw what a run found under what it should have found.

    Args:
        references: Name, value and standard error [kT]; the band is that of the first; may be
            empty.
        estimates: The same, the final result first [kT].
    """
    rows = [*references, *estimates]
    colours = [REFERENCE] * len(references) + [REWEIGHTED] + [EMULATOR] * (len(estimates) - 1)
    figure = Figure(figsize=(4.8, 0.6 + 0.28 * len(rows)))
    axis = figure.subplots()
    for _, value, stderr in references[:1]:
        reach = NORMAL_95 * stderr
        axis.axvspan(value - reach, value + reach, color=REFERENCE, alpha=0.1, linewidth=0)
    for place, ((_, value, stderr), colour) in enumerate(zip(rows, colours, strict=True)):
        axis.errorbar(value, place, xerr=NORMAL_95 * stderr, fmt="o", color=colour, capsize=3)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axis.set(xlabel="Δf (kT), bars: 1.96 standard errors", ylim=(len(rows) - 0.5, -0.5))
    axis.tick_params(axis="y", length=0)
    return figure
