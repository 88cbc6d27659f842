"""Groups on a straight line, where torsions have no meaning and angles no Gaussian."""

import math

import numpy as np

from bnce_dist.chem.coordinates.zmatrix import ZMatrix
from bnce_dist.chem.graph import neighbours_of
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError

MAX_ANGLE = math.radians(160)
"""Four thermal standard deviations, of 5 degrees at 300 K, from a straight line."""


def require_bent(molecule: Molecule, zmatrix: ZMatrix) -> None:
    """Refuse a molecule with a group that internal coordinates cannot describe.

    Around a straight line the volume element vanishes and the torsion jumps; a simulation comes
    there in one frame of a hundred, and no such frame has coordinates. Only atoms of two bonds are
    asked: others, and hydroxyls, are straight only where a relaxed structure is strained.

    Args:
        molecule: With its relaxed structure.
        zmatrix: Of the same molecule.

    Raises: InputError: such an atom has a nearly straight angle.
    """
    near = neighbours_of(molecule.num_atoms, molecule.bonds)
    for end, middle, start, *_ in zmatrix.rows[2:]:
        is_hydroxyl = molecule.elements[middle] not in "CN" and any(
            molecule.elements[atom] == "H" for atom in near[middle]
        )
        if len(near[middle]) != 2 or is_hydroxyl:
            continue
        angle = _angle(molecule, end, middle, start)
        if angle > MAX_ANGLE:
            names = "-".join(molecule.atom_names[atom] for atom in (end, middle, start))
            raise InputError(
                f"molecule {molecule.name}",
                expected=f"angles below {math.degrees(MAX_ANGLE):.0f} degrees: internal "
                "coordinates break down on a straight line",
                got=f"{math.degrees(angle):.0f} degrees of {names}",
                remedy="choose a molecule without nitriles, alkynes, allenes and azides",
            )


def _angle(molecule: Molecule, end: int, middle: int, start: int) -> float:
    first, second = (
        molecule.positions_nm[atom] - molecule.positions_nm[middle] for atom in (end, start)
    )
    return math.atan2(float(np.linalg.norm(np.cross(first, second))), float(first @ second))
