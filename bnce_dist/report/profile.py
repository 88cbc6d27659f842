"""The free energy along a torsion, against the reference."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnce_dist.chem.order_parameters import OrderParameter
from bnce_dist.core.metrics import FreeEnergyProfile
from bnce_dist.report.results import Array
from bnce_dist.report.style import EMULATOR, MUTED, REFERENCE, REWEIGHTED, angle_axis, styled

# Above this a bin holds a handful of samples at most.
CAP_KT = 10
OFF_AXIS_KT = 1e3


@styled
def profile_figure(
    reweighted: FreeEnergyProfile,
    reference: FreeEnergyProfile | None,
    emulator: FreeEnergyProfile,
    *,
    delta_f: tuple[float, float],
    delta_f_reference: tuple[float, float] | None,
    state: tuple[float, float] | None = (0.0, 2.0),
    label: str = "φ",
    reference_method: str = "umbrella sampling",
) -> Figure:
    """Draw three profiles, and below them how far the first is from the second, if that is known.

    Args:
        reweighted: The result, on the bins of the reference.
        reference: What it should be; None where nothing was simulated.
        emulator: The samples before reweighting.
        delta_f: Free energy of the state against the rest, and its standard error [kT].
        delta_f_reference: The same of the reference [kT], if there is one.
        state: Interval of phi that is the state, which is shaded [rad]; None if it is no interval.
        label: What phi is called.
        reference_method: How the reference was come by.
    """
    figure = Figure(figsize=(6.4, 4.6 if reference else 3.6))
    heights = [3, 1] if reference else [1]
    axes = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    upper, *lower = axes
    if state is not None:
        for axis in axes:
            axis.axvspan(*np.degrees(state), color=MUTED, alpha=0.12, linewidth=0)
    phi = np.degrees(emulator.centres)
    upper.plot(
        phi, _gaps(emulator.value_kT), color=EMULATOR, linewidth=1.1, label="Emulator, unweighted"
    )
    if reference is not None:
        _draw(upper, reference, np.zeros(1), REFERENCE, f"Reference ({reference_method})")
    _draw(upper, reweighted, np.zeros(1), REWEIGHTED, "Reweighted")
    title = f"{'State in grey' if state else 'State'}: $\\Delta f$ = {_text(delta_f)}"
    if delta_f_reference is not None:
        title += f", reference {_text(delta_f_reference)}"
    lowest = min(p.value_kT.min() for p in (reweighted, reference, emulator) if p is not None)
    limits = (min(lowest, 0) - 0.7, CAP_KT)
    upper.set(title=title, ylabel=f"Free energy −ln p({label}) (kT)", ylim=limits)
    upper.legend(
        loc="upper left", title="Bands: 95 % bootstrap", title_fontsize=8.5, alignment="left"
    )
    if reference is not None:
        shift = _gaps(reference.value_kT)
        _draw(lower[0], reference, shift, REFERENCE)
        _draw(lower[0], reweighted, shift, REWEIGHTED)
        lower[0].set(ylabel="Difference (kT)", ylim=(-1, 1))
    angle_axis(axes[-1], label=label)
    return figure


def _text(result: tuple[float, float]) -> str:
    return f"{result[0]:.2f} ± {result[1]:.2f} kT"


@styled
def profiles_figure(profiles: Mapping[str, FreeEnergyProfile], parameter: OrderParameter) -> Figure:
    """Draw a run's profile along any order parameter, with its reference.

    Args:
        profiles: Up to two, by name: the result and what it should be.
        parameter: The order parameter.
    """
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for (name, profile), colour in zip(
        reversed(list(profiles.items())), (REFERENCE, REWEIGHTED)[-len(profiles) :], strict=True
    ):
        _draw(axis, profile, np.zeros(1), colour, name, parameter.unit)
    lowest = min(profile.value_kT.min() for profile in profiles.values())
    axis.set(ylabel=f"Free energy −ln p({parameter.name}) (kT)")
    axis.legend(title="Bands: 95 % bootstrap", title_fontsize=8.5, alignment="left")
    if parameter.is_periodic:
        axis.set(ylim=(min(lowest, 0) - 0.7, CAP_KT))
        angle_axis(axis, label=parameter.name)
        return figure
    # Densities per nm are large, and their free energies far below zero.
    axis.set(ylim=(lowest - 0.7, lowest + CAP_KT))
    axis.set(xlabel=f"{parameter.name} ({'degrees' if parameter.unit == 'rad' else 'nm'})")
    return figure


def _draw(
    axis: Axes,
    profile: FreeEnergyProfile,
    shift: Array,
    colour: str,
    label: str | None = None,
    unit: str = "rad",
) -> None:
    x = np.degrees(profile.centres) if unit == "rad" else profile.centres
    values = _gaps(profile.value_kT) - shift
    # A bin that some replicates leave empty has no upper end: its band leaves the axis.
    low, high = (
        np.minimum(end, OFF_AXIS_KT) - shift for end in (profile.lower_kT, profile.upper_kT)
    )
    shown = np.isfinite(values)
    axis.fill_between(x, low, high, where=shown, color=colour, alpha=0.25, linewidth=0)
    axis.plot(x, values, color=colour, label=label)


def _gaps(values: Array) -> Array:
    # Empty bins have infinite free energy; a line must break there.
    return np.where(np.isfinite(values), values, np.nan)
