"""Free energies of a finished run along torsions of the user's choice."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.order_parameters import find_torsion
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.core.metrics import FreeEnergyProfile, free_energy_profile
from bnce_dist.core.weights import Weights
from bnce_dist.data.atomic import atomic_path
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.results import load_evaluation

REWEIGHTED, REFERENCE = "Reweighted", "Reference"


@dataclass(frozen=True)
class WeightedAngles:
    """One or two torsions of weighted conformations.

    Args:
        angles: ``(samples, torsions)`` [rad].
        log_weights: ``(samples,)`` [nats].
        replica: Independent simulation of each, ``(samples,)``; absent where samples are
            independent themselves.
    """

    angles: NDArray[np.float64]
    log_weights: NDArray[np.float64]
    replica: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class Profile:
    """A run's free energy along one torsion, or over two.

    Args:
        names: Of the torsions, as they were asked for.
        ensembles: The run's weighted samples and, where its frames are there, its reference.
        seed: Of the bands.
    """

    names: tuple[str, ...]
    ensembles: Mapping[str, WeightedAngles]
    seed: int = 0

    def along(self, num_bins: int) -> dict[str, FreeEnergyProfile]:
        """Return ``-ln p`` along the first torsion with its 95 % band, by ensemble.

        Args:
            num_bins: Bins over the circle.
        """
        from bnce_dist.report.histograms import replica_profile

        found = {}
        for name, ensemble in self.ensembles.items():
            first, weights = ensemble.angles[:, 0], ensemble.log_weights
            found[name] = (
                free_energy_profile(first, Weights(weights).normalised, num_bins, seed=self.seed)
                if ensemble.replica is None
                else replica_profile(
                    first, weights, ensemble.replica, num_bins=num_bins, seed=self.seed
                )
            )
        return found

    def write(self, stem: Path, num_bins: int) -> list[Path]:
        """Write the table ``<stem>.csv`` and the figure ``<stem>.png``, each whole or not at all.

        Args:
            stem: Where, without a suffix.
            num_bins: Bins over the circle.
        """
        from bnce_dist.report.figures import save_figure
        from bnce_dist.report.profile import profiles_figure
        from bnce_dist.report.ramachandran import ramachandran_figure

        table, picture = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.png")
        if len(self.names) == 1:
            along = self.along(num_bins)
            _write_table(table, _rows_along(self.names[0], along))
            save_figure(profiles_figure(along, label=self.names[0]), picture)
        else:
            panels = {
                name: (ensemble.angles[:, 0], ensemble.angles[:, 1], ensemble.log_weights)
                for name, ensemble in self.ensembles.items()
            }
            _write_table(table, _rows_over(self.names, panels, num_bins))
            labels = (self.names[0], self.names[1])
            save_figure(
                ramachandran_figure(panels, state=None, num_bins=num_bins, labels=labels), picture
            )
        return [table, picture]


def profile(folder: Path, *names: str) -> Profile:
    """Return the free energy of a finished run along one torsion, or over two.

    Args:
        folder: Of the run.
        names: Of one or two torsions, as `find_torsion` takes them.

    Raises: InputError: no finished run, no such torsion, or no sample with a weight.
    """
    run = RunFolder(folder)
    if not (folder / "metrics.json").exists():
        raise InputError(
            f"folder {folder}",
            expected="a finished run",
            got="no metrics.json in it",
            remedy="name the folder of one molecule's run (of a fleet: FLEET/MOLECULE)",
        )
    config = load_config(Config, run.config_path)
    target = Target.from_config(config.target)
    torsions = [find_torsion(target.molecule, name) for name in names]
    evaluation = load_evaluation(run, target)
    if not evaluation.samples.has_weight:
        raise InputError(
            f"run {folder}", expected="samples with weights", got="none",
            remedy="see the verdict of the run",
        )  # fmt: skip
    positions = evaluation.dataset.load(["positions_nm"])["positions_nm"]
    ensembles = {
        REWEIGHTED: WeightedAngles(_angles(positions, torsions), evaluation.samples.log_weights)
    }
    simulation = run.stage("simulate")
    if (simulation / "umbrella").exists():
        ensembles[REFERENCE] = _reference(simulation, evaluation.reference, torsions)
    return Profile(names, ensembles, config.seed)


def _angles(
    positions_nm: NDArray[np.floating], torsions: list[tuple[int, int, int, int]]
) -> NDArray[np.float64]:
    positions = torch.from_numpy(positions_nm)
    return np.stack([dihedral(positions, t).double().numpy() for t in torsions], axis=1)


def _reference(
    simulation: Path, reference: Reference, torsions: list[tuple[int, int, int, int]]
) -> WeightedAngles:
    shards = ShardedDataset.open(simulation / "umbrella")
    positions = shards.load(["positions_nm"])["positions_nm"]
    _, num_chains, *atoms = positions.shape
    angles = _angles(positions.reshape(-1, *atoms), torsions)
    # Of several simulations each is a replica; of one trajectory each of its blocks.
    rows = np.arange(len(angles))
    replica = rows // (len(angles) // len(shards)) if len(shards) > 1 else rows % num_chains
    return WeightedAngles(angles, reference.potential_log_weights, replica)


def _rows_along(name: str, along: Mapping[str, FreeEnergyProfile]) -> list[list[str]]:
    rows = [[f"{name} [degree]"]]
    for ensemble in along:
        rows[0] += [f"{ensemble} [kT]", f"{ensemble} lower [kT]", f"{ensemble} upper [kT]"]
    profiles = list(along.values())
    for index, centre in enumerate(profiles[0].centres):
        values = [
            column[index] for p in profiles for column in (p.value_kT, p.lower_kT, p.upper_kT)
        ]
        rows.append([f"{math.degrees(centre):.1f}", *map(_number, values)])
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
