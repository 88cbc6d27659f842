"""Free energies of a finished run along order parameters of the user's choice."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.order_parameters import OrderParameter, find_order_parameter
from bnce_dist.core.errors import InputError
from bnce_dist.core.metrics import FreeEnergyProfile, free_energy_profile
from bnce_dist.core.weights import Weights
from bnce_dist.data.atomic import atomic_path
from bnce_dist.runs.finished import FinishedRun

REWEIGHTED, REFERENCE = "Reweighted", "Reference"


@dataclass(frozen=True)
class WeightedValues:
    """One or two order parameters of weighted conformations.

    Args:
        values: ``(samples, parameters)`` [rad or nm].
        log_weights: ``(samples,)`` [nats].
        replica: Independent simulation of each, ``(samples,)``; absent where samples are
            independent themselves.
    """

    values: NDArray[np.float64]
    log_weights: NDArray[np.float64]
    replica: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class Profile:
    """A run's free energy along one order parameter, or over two torsions.

    Args:
        parameters: The order parameters.
        ensembles: The run's weighted samples and, where its frames are there, its reference.
        seed: Of the bands.
    """

    parameters: tuple[OrderParameter, ...]
    ensembles: Mapping[str, WeightedValues]
    seed: int = 0

    def along(self, num_bins: int) -> dict[str, FreeEnergyProfile]:
        """Return ``-ln p`` along the first order parameter with its 95 % band, by ensemble.

        Args:
            num_bins: Bins over the circle, or over what was seen of a distance or an angle.
        """
        from bnce_dist.report.histograms import replica_profile

        found, limits = {}, self._limits()
        for name, ensemble in self.ensembles.items():
            first, weights = ensemble.values[:, 0], ensemble.log_weights
            found[name] = (
                free_energy_profile(
                    first, Weights(weights).normalised, num_bins, limits=limits, seed=self.seed
                )
                if ensemble.replica is None
                else replica_profile(
                    first, weights, ensemble.replica,
                    num_bins=num_bins, limits=limits, seed=self.seed,
                )
            )  # fmt: skip
        return found

    def _limits(self) -> tuple[float, float]:
        """Return between which values the bins lie."""
        if self.parameters[0].is_periodic:
            return self.parameters[0].limits
        seen = np.concatenate(
            [e.values[np.isfinite(e.log_weights), 0] for e in self.ensembles.values()]
        )
        return float(seen.min()), float(seen.max())

    def write(self, stem: Path, num_bins: int) -> list[Path]:
        """Write the table ``<stem>.csv`` and the figure ``<stem>.png``, each whole or not at all.

        Args:
            stem: Where, without a suffix.
            num_bins: As of `along`.
        """
        from bnce_dist.report.figures import save_figure
        from bnce_dist.report.profile import profiles_figure
        from bnce_dist.report.ramachandran import ramachandran_figure

        table, picture = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.png")
        if len(self.parameters) == 1:
            along = self.along(num_bins)
            _write_table(table, _rows_along(self.parameters[0], along))
            save_figure(profiles_figure(along, self.parameters[0]), picture)
        else:
            panels = {
                name: (ensemble.values[:, 0], ensemble.values[:, 1], ensemble.log_weights)
                for name, ensemble in self.ensembles.items()
            }
            labels = (self.parameters[0].name, self.parameters[1].name)
            _write_table(table, _rows_over(labels, panels, num_bins))
            save_figure(
                ramachandran_figure(panels, state=None, num_bins=num_bins, labels=labels), picture
            )
        return [table, picture]


def profile(folder: Path, *names: str) -> Profile:
    """Return the free energy of a finished run along one order parameter, or over two torsions.

    Args:
        folder: Of the run.
        names: Of one order parameter or two torsions, as `find_order_parameter` takes them.

    Raises: InputError: no finished run, no such order parameter, no sample with a weight, or two
        that are not both torsions.
    """
    run = FinishedRun.open(folder)
    parameters = tuple(find_order_parameter(run.target.molecule, name) for name in names)
    for parameter in parameters:
        if len(parameters) > 1 and not parameter.is_periodic:
            raise InputError(
                "free energy over two order parameters", expected="two torsions",
                got=parameter.name, remedy="leave --and out",
            )  # fmt: skip

    def values(positions_nm: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.stack([p.values(positions_nm) for p in parameters], axis=1).astype(np.float64)

    samples = WeightedValues(values(run.positions_nm()), run.evaluation.samples.log_weights)
    ensembles = {REWEIGHTED: samples}
    frames = run.reference_frames()
    if frames is not None:
        ensembles[REFERENCE] = WeightedValues(
            values(frames.positions_nm), frames.log_weights, frames.replica
        )
    return Profile(parameters, ensembles, run.config.seed)


def _rows_along(
    parameter: OrderParameter, along: Mapping[str, FreeEnergyProfile]
) -> list[list[str]]:
    is_angle = parameter.unit == "rad"
    rows = [[f"{parameter.name} [{'degree' if is_angle else parameter.unit}]"]]
    for ensemble in along:
        rows[0] += [f"{ensemble} [kT]", f"{ensemble} lower [kT]", f"{ensemble} upper [kT]"]
    profiles = list(along.values())
    for index, centre in enumerate(profiles[0].centres):
        values = [
            column[index] for p in profiles for column in (p.value_kT, p.lower_kT, p.upper_kT)
        ]
        place = f"{math.degrees(centre):.1f}" if is_angle else f"{centre:.5f}"
        rows.append([place, *map(_number, values)])
    return rows


def _rows_over(
    names: tuple[str, ...], panels: Mapping[str, tuple[NDArray, NDArray, NDArray]], num_bins: int
) -> list[list[str]]:
    from bnce_dist.report.histograms import free_energy_surface

    surfaces = [free_energy_surface(*columns, num_bins) for columns in panels.values()]
    centres = (np.arange(num_bins) + 0.5) * 360 / num_bins - 180
    rows = [[f"{name} [degree]" for name in names] + [f"{name} [kT]" for name in panels]]
    for i, first in enumerate(centres):
        for j, second in enumerate(centres):
            values = [_number(surface[i, j]) for surface in surfaces]
            rows.append([f"{first:.1f}", f"{second:.1f}", *values])
    return rows


def _number(value: float) -> str:
    """Return three decimals, and nothing for the infinity of an empty bin."""
    return f"{value:.3f}" if math.isfinite(value) else ""


def _write_table(path: Path, rows: list[list[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
