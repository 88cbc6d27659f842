"""Which of two like atoms is which: what only a structure tells, told alike in all molecules.

Two hydrogens of one carbon, the two of an amide, the two methyls of valine: relaxed structures have
their numbers either way round, and physics does not mind.
"""

import math

import torch
from torch import Tensor

from bnce_dist.chem.geometry import dihedral, signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import exchangeable_hydrogens

_METHYL = ["C", "H", "H", "H"]


def standing_in(molecule: Molecule) -> list[int]:
    """Return the atom that stands where another molecule has the atom of that number.

    Where two like ones are the other way round than in a molecule of the standard order, they take
    each other's numbers. That order goes by their hand for hydrogens of a tetrahedral atom and for
    two methyls; the first hydrogen of a planar NH2 is trans to the lowest neighbour of its carrier.

    Args:
        molecule: With its relaxed structure.

    Returns: A permutation of the atoms.
    """
    positions = torch.from_numpy(molecule.positions_nm)
    neighbours = _neighbours(molecule)
    groups = dict[int, int]()
    for pair in (*_planar_pairs(molecule, neighbours, positions),
                 *_methyl_pairs(molecule, neighbours, positions)):  # fmt: skip
        groups |= pair | {second: first for first, second in pair.items()}
    hydrogens = dict[int, int]()
    for group in exchangeable_hydrogens(molecule):
        if signed_volume(positions, group) < 0:
            *_, first, second = group
            hydrogens |= {first: second, second: first}
    in_place = [groups.get(atom, atom) for atom in range(molecule.num_atoms)]
    return [hydrogens.get(atom, atom) for atom in in_place]


def _neighbours(molecule: Molecule) -> list[list[int]]:
    neighbours: list[list[int]] = [[] for _ in range(molecule.num_atoms)]
    for i, j in molecule.bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    return [sorted(near) for near in neighbours]


def _planar_pairs(
    molecule: Molecule, neighbours: list[list[int]], positions: Tensor
) -> list[dict[int, int]]:
    """Return pairs of hydrogens, the first of which is cis and should be trans."""
    pairs = []
    for atom, near in enumerate(neighbours):
        hydrogens = [other for other in near if molecule.elements[other] == "H"]
        heavy = [other for other in near if molecule.elements[other] != "H"]
        if molecule.elements[atom] != "N" or len(hydrogens) != 2 or len(heavy) != 1:
            continue
        (carrier,) = heavy
        beyond = [other for other in neighbours[carrier] if other != atom]
        if len(beyond) != 2:
            continue
        angle = dihedral(positions[None], (beyond[0], carrier, atom, hydrogens[0])).item()
        if abs(angle) < math.pi / 2:
            pairs.append({hydrogens[0]: hydrogens[1]})
    return pairs


def _methyl_pairs(
    molecule: Molecule, neighbours: list[list[int]], positions: Tensor
) -> list[dict[int, int]]:
    """Return pairs of methyls of the wrong hand, atom by atom."""
    pairs = []
    for atom, near in enumerate(neighbours):
        methyls = [
            [other, *(n for n in neighbours[other] if molecule.elements[n] == "H")]
            for other in near
        ]
        methyls = [m for m in methyls if [molecule.elements[n] for n in m] == _METHYL]
        if len(near) != 4 or len(methyls) != 2:
            continue
        first, second = methyls
        (reference, *_) = (other for other in near if other not in (first[0], second[0]))
        if signed_volume(positions, (atom, reference, first[0], second[0])) < 0:
            pairs.append(dict(zip(first, second, strict=True)))
    return pairs
