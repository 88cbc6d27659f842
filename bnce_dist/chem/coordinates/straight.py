"""Groups on a straight line, where torsions have no meaning and angles no Gaussian."""

import math

import numpy as np

from bnce_dist.chem.coordinates.zmatrix import ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError

MAX_ANGLE = math.radians(160)
"""Four thermal standard deviations, of 5 degrees at 300 K, from a straight line."""


def require_bent(molecule: Molecule, zmatrix: ZMatrix) -> None:
    """Refuse a molecule with an angle that internal coordinates cannot describe.

    Around a straight line the volume element vanishes and the torsion jumps; a simulation comes
    there in one frame of a hundred, and no such frame has coordinates.

    Args:
        molecule: With its relaxed structure.
        zmatrix: Of the same molecule.

    Raises: InputError: an angle by which an atom is placed is nearly straight.
    """
    placed = np.array([row[:3] for row in zmatrix.rows[2:]])
    end, middle, start = (molecule.positions_nm[column] for column in placed.T)
    arms = end - middle, start - middle
    normal = np.linalg.norm(np.cross(*arms), axis=1)
    angles = np.arctan2(normal, (arms[0] * arms[1]).sum(1))
    widest = int(angles.argmax())
    if angles[widest] > MAX_ANGLE:
        names = "-".join(molecule.atom_names[atom] for atom in placed[widest])
        raise InputError(
            f"molecule {molecule.name}",
            expected=f"angles below {math.degrees(MAX_ANGLE):.0f} degrees: internal coordinates "
            "break down on a straight line",
            got=f"{math.degrees(angles[widest]):.0f} degrees of {names}",
            remedy="choose a molecule without nitriles, alkynes, allenes and azides",
        )
