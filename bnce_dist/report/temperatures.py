"""The free energy of a state against the temperature, with its energy and its entropy."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bnce_dist.report.estimates import NORMAL_95
from bnce_dist.report.style import EMULATOR, REFERENCE, REWEIGHTED, styled


@styled
def temperature_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw what `generator.thermodynamics` found at each temperature that is within reach.

    Args:
        rows: ``temperatures`` of ``metrics.json``.
    """
    figure = Figure(figsize=(6.4, 3.6))
    axis = figure.subplots()
    known = [row for row in rows if row["delta_f_kT"] is not None]
    temperatures = [row["temperature_kelvin"] for row in known]

    def draw(label: str, values: list[float], stderrs: list[float], colour: str) -> None:
        bars = [NORMAL_95 * stderr for stderr in stderrs]
        axis.errorbar(temperatures, values, yerr=bars, fmt="o-", color=colour, capsize=3)
        axis.plot([], [], "o-", color=colour, label=label)

    draw(
        "ΔF",
        [row["delta_f_kj_mol"] for row in known],
        [row["delta_f_stderr_kj_mol"] for row in known],
        REWEIGHTED,
    )
    draw(
        "ΔU",
        [row["delta_u_kj_mol"] for row in known],
        [row["delta_u_stderr_kj_mol"] for row in known],
        EMULATOR,
    )
    per_kelvin = [row["temperature_kelvin"] / 1000 for row in known]
    draw(
        "−TΔS",
        [-row["delta_s_j_mol_kelvin"] * t for row, t in zip(known, per_kelvin, strict=True)],
        [row["delta_s_stderr_j_mol_kelvin"] * t for row, t in zip(known, per_kelvin, strict=True)],
        REFERENCE,
    )
    axis.set(xlabel="Temperature (K)", ylabel="State against the rest (kJ/mol)")
    figure.legend(
        loc="outside right upper",
        title="1.96 std. errors",
        title_fontsize=8.5,
        alignment="left",
    )
    return figure
