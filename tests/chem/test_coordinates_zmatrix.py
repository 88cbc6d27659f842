"""The Z-matrix against what a chemist would write down by hand."""

import random
from functools import cache

import pytest

from bnce_dist.chem.coordinates import ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError

# HH31 CH3 HH32 HH33 C O | N H CA HA CB HB1 HB2 HB3 C O | N H CH3 HH31 HH32 HH33
ALANINE_DIPEPTIDE = list("HCHHCONHCHCHHHCONHCHHH")
ALANINE_DIPEPTIDE_BONDS = [
    *((0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9), (8, 10)),
    *((10, 11), (10, 12), (10, 13), (8, 14), (14, 15), (14, 16), (16, 17), (16, 18)),
    *((18, 19), (18, 20), (18, 21)),
]
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)


@cache
def build(sequence: str) -> Molecule:
    return Molecule.from_sequence(sequence)


def test_alanine_dipeptide_has_five_free_torsions_phi_and_psi_among_them():
    zmatrix = ZMatrix.from_graph(ALANINE_DIPEPTIDE, ALANINE_DIPEPTIDE_BONDS)
    lengths = [len(atoms) for atoms in zmatrix.stiff]
    assert (lengths.count(2), lengths.count(3), lengths.count(4)) == (21, 20, 14)
    assert {PHI, PSI[::-1]} <= set(zmatrix.circular_torsions)
    axes = {frozenset(torsion[1:3]) for torsion in zmatrix.circular_torsions}
    methyls = {frozenset((1, 4)), frozenset((8, 10)), frozenset((16, 18))}
    assert axes == methyls | {frozenset(PHI[1:3]), frozenset(PSI[1:3])}
    assert len(zmatrix.circular_torsions) == 5


def test_the_bonds_of_the_table_are_the_bonds_of_the_molecule():
    zmatrix = ZMatrix.from_graph(ALANINE_DIPEPTIDE, ALANINE_DIPEPTIDE_BONDS)
    assert {frozenset(row[:2]) for row in zmatrix.rows[1:]} == set(
        map(frozenset, ALANINE_DIPEPTIDE_BONDS)
    )


def test_every_atom_is_placed_once_by_distinct_atoms_of_earlier_levels():
    zmatrix = ZMatrix.from_graph(ALANINE_DIPEPTIDE, ALANINE_DIPEPTIDE_BONDS)
    assert sorted(row[0] for row in zmatrix.rows) == list(range(22))
    placed = {row[0] for row in zmatrix.rows[:3]}
    remaining = list(zmatrix.rows[3:])
    for size in zmatrix.level_sizes:
        level, remaining = remaining[:size], remaining[size:]
        assert all(len(set(row)) == 4 and set(row[1:]) <= placed for row in level)
        placed |= {row[0] for row in level}
    assert not remaining


def test_the_order_in_which_bonds_are_listed_does_not_matter():
    shuffled = [bond[::-1] for bond in ALANINE_DIPEPTIDE_BONDS]
    random.Random(0).shuffle(shuffled)
    assert ZMatrix.from_graph(ALANINE_DIPEPTIDE, shuffled) == ZMatrix.from_graph(
        ALANINE_DIPEPTIDE, ALANINE_DIPEPTIDE_BONDS
    )


@pytest.mark.parametrize(
    ("sequence", "free_torsions"),
    [
        # By hand: NH3+, phi, psi and the C-terminal carboxylate, then the side chains.
        ("AC", 4 + 1 + 2),
        ("ET", 4 + 3 + 3),
        ("KS", 4 + 5 + 2),
        ("NY", 4 + 2 + 3),
        ("ACE-ALA-GLY-NME", 7),
        ("ACE-PRO-NME", 3),
        ("ACE-TRP-NME", 6),
        ("ACE-ARG-NME", 8),
    ],
)
def test_every_rotatable_bond_has_exactly_one_free_torsion(sequence, free_torsions):
    molecule = build(sequence)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    axes = [frozenset(torsion[1:3]) for torsion in zmatrix.circular_torsions]
    assert len(axes) == len(set(axes)) == free_torsions
    names = [{molecule.atom_names[atom] for atom in axis} for axis in axes]
    assert {"C", "N"} not in names  # No peptide bond turns.


@pytest.mark.parametrize("sequence", ["NY", "ACE-TRP-NME"])
def test_backbone_torsions_are_coordinates_whatever_the_side_chain(sequence):
    molecule = build(sequence)
    free = ZMatrix.from_graph(molecule.elements, molecule.bonds).circular_torsions
    for torsion in (molecule.phi, molecule.psi):
        assert torsion in free or torsion[::-1] in free


def test_molecules_other_than_peptides_work_too():
    propane = list("CCC" + 8 * "H")
    bonds = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8), (2, 9), (2, 10)]
    assert len(ZMatrix.from_graph(propane, bonds).circular_torsions) == 2
    water = ZMatrix.from_graph(["O", "H", "H"], [(0, 1), (0, 2)])
    assert water.rows[1][0] == 0
    assert water.circular == ()


@pytest.mark.parametrize(
    ("elements", "bonds", "complaint"),
    [
        (["O", "H"], [(0, 1)], "at least 3, got 2"),
        (["O", "H", "H"], [(0, 1), (0, 3)], r"got \(0, 3\)"),
        (["O", "H", "H"], [(0, 1), (2, 2)], r"got \(2, 2\)"),
        (["O", "H", "H"], [(0, 1)], "atom 2 not connected"),
    ],
)
def test_graphs_that_are_no_molecule_are_refused(elements, bonds, complaint):
    with pytest.raises(InputError, match=complaint):
        ZMatrix.from_graph(elements, bonds)
