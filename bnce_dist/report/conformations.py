"""A few conformations that stand for all, ready to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.weights import Weights
from bnce_dist.report.results import Array, RunResults

# Narrow enough to find a peak, wide enough to hold a few hundred samples there.
BIN_DEGREES = 15
BASIN_RADIUS_DEGREES = 60
# What is left below this share is scattered between the basins.
SMALLEST_SHARE = 0.002


@dataclass(frozen=True)
class Basin:
    """A region of the Ramachandran plot and the sample that stands for it.

    Args:
        sample: Index of the sample nearest to the region's peak.
        share: Of the total weight, what lies within 60 degrees of the peak.
    """

    sample: int
    share: float


def basins(phi: Array, psi: Array, log_weights: Array, *, max_basins: int = 6) -> list[Basin]:
    """Return the most populated regions, the heaviest peak first; none without any weight.

    The highest peak takes all samples around it, then the highest of what is left does.

    Args:
        phi: ``(samples,)`` [rad].
        psi: ``(samples,)`` [rad].
        log_weights: Unnormalised, ``(samples,)`` [nats].
        max_basins: Regions at most.
    """
    if not np.isfinite(log_weights).any():
        return []
    angles = np.degrees(np.stack([phi, psi], axis=1))
    edges = np.arange(-180.0, 181.0, BIN_DEGREES)
    weights = Weights(log_weights).normalised.copy()
    found: list[Basin] = []
    while len(found) < max_basins and weights.sum() > SMALLEST_SHARE:
        mass, _, _ = np.histogram2d(
            angles[:, 0], angles[:, 1], bins=(edges, edges), weights=weights
        )
        peak = np.array(np.unravel_index(mass.argmax(), mass.shape)) * BIN_DEGREES
        distance = _distance(angles, peak - 180 + BIN_DEGREES / 2)
        sample = int(np.where(weights > 0, distance, np.inf).argmin())
        inside = distance < BASIN_RADIUS_DEGREES
        found.append(Basin(sample, float(weights[inside].sum())))
        weights[inside] = 0
    return found


def superpose(positions_nm: Array, masses: Array) -> Array:
    """Turn conformations so that they lie on the first, whose long axis lies across the page.

    Args:
        positions_nm: ``(conformations, atoms, 3)`` [nm].
        masses: Weights of the atoms, ``(atoms,)``.

    Returns: Centred positions of the same shape [nm].
    """
    centred = positions_nm - np.average(positions_nm, axis=1, weights=masses)[:, None]
    axes = np.linalg.svd(centred[0], full_matrices=False)[2]
    first = centred[0] @ (axes * np.linalg.det(axes)).T
    turns = [Rotation.align_vectors(first, other, weights=masses)[0] for other in centred]
    return np.stack([turn.apply(other) for turn, other in zip(turns, centred, strict=True)])


def structures(
    molecule: Molecule, results: RunResults, chosen: Sequence[Basin], positions_nm: Array
) -> dict[str, Any]:
    """Return what the viewer of the HTML report draws, as plain data.

    Args:
        molecule: Of the run.
        results: Of the run.
        chosen: Regions of its samples.
        positions_nm: The samples that stand for them, ``(regions, atoms, 3)`` [nm].
    """
    placed = superpose(positions_nm, molecule.masses_dalton)
    return {
        "elements": list(molecule.elements),
        "bonds": [list(bond) for bond in molecule.bonds],
        "conformations": [
            {"label": _label(results, basin), "positions_nm": np.round(positions, 4).tolist()}
            for basin, positions in zip(chosen, placed, strict=True)
        ],
    }


def _label(results: RunResults, basin: Basin) -> str:
    phi, psi = (np.degrees(angle[basin.sample]) for angle in (results.phi, results.psi))
    first, second = results.torsion_labels
    where = f"{first} {phi:.0f}°, {second} {psi:.0f}°".replace("-", "−")
    return f"{where}: {basin.share:.1%} of the weight"


def _distance(angles: Array, centre: Array) -> Array:
    """Return distances on the torus [degrees]."""
    away = (angles - centre + 180) % 360 - 180
    return np.linalg.norm(away, axis=1)
