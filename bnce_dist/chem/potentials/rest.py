"""What a force field by itself says of bonds and angles: where they rest and how far they swing."""

import math

from torch import Tensor

from bnce_dist.chem.potentials.bonded import Angles, Bonds
from bnce_dist.chem.potentials.coordinate_functions import Harmonic
from bnce_dist.chem.potentials.force_field import ForceField

RestValues = dict[tuple[int, ...], tuple[float, float]]
"""Rest value and thermal width [nm or rad] by the atoms of a bond or an angle, in both orders."""


def rest_values(force_field: ForceField) -> RestValues:
    r"""Return the rest value and the thermal width of every harmonic bond and angle.

    .. math:: \sigma = \sqrt{k_B T / k}

    Args:
        force_field: With the temperature.
    """
    values: RestValues = {}
    for term in force_field.bonded:
        if isinstance(term, Bonds) and isinstance(term.energy, Harmonic):
            atoms = (term.vectors.first, term.vectors.second)
            _collect(values, atoms, term.energy, force_field.kt_kj_mol)
        elif isinstance(term, Angles) and isinstance(term.energy, Harmonic):
            start, end = term.arms.first.chunk(2)
            middle = term.arms.second.chunk(2)[0]
            _collect(values, (start, middle, end), term.energy, force_field.kt_kj_mol)
    return values


def _collect(
    values: RestValues, atoms: tuple[Tensor, ...], energy: Harmonic, kt_kj_mol: float
) -> None:
    columns = zip(*(column.tolist() for column in atoms), strict=True)
    rests, stiffnesses = energy.rest.flatten().tolist(), energy.stiffness.flatten().tolist()
    for key, rest, stiffness in zip(columns, rests, stiffnesses, strict=True):
        if stiffness > 0:
            values[key] = values[key[::-1]] = (rest, math.sqrt(kt_kj_mol / stiffness))
