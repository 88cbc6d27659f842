"""Torsions by name, against the atoms that the textbook's definitions name."""

from dataclasses import replace

import numpy as np
import pytest

from bnce_dist.chem.molecule import Molecule, Quadruple
from bnce_dist.chem.order_parameters import (
    find_companion,
    find_order_parameter,
    find_torsion,
    require_turning,
)
from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.core.errors import InputError
from tests.chem.substances import alkane


def peptide(sequence: str) -> Molecule:
    # The graph is enough: no time is spent on a structure.
    return Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))


def skeleton(elements: str, bonds: list[tuple[int, int]]) -> Molecule:
    """Return a molecule of one residue, with atoms named by element and number."""
    names = tuple(f"{element}{i}" for i, element in enumerate(elements))
    count = len(elements)
    return Molecule(
        "skeleton",
        ("MOL",),
        (0,) * count,
        names,
        tuple(elements),
        tuple(bonds),
        np.zeros((count, 3)),
    )


def named(molecule: Molecule, torsion: Quadruple) -> str:
    return " ".join(
        f"{molecule.residue_index[atom] + 1}:{molecule.atom_names[atom]}" for atom in torsion
    )


@pytest.mark.parametrize(
    ("name", "atoms"),
    [
        ("phi", (4, 6, 8, 15)),
        ("phi:2", (4, 6, 8, 15)),
        ("psi", (6, 8, 15, 17)),
        ("omega", (1, 4, 6, 8)),
        ("omega:2", (8, 15, 17, 19)),
        ("chi1", (6, 8, 10, 13)),
        (" chi1:2 ", (6, 8, 10, 13)),
        ("2:N-2:CA-CB-OG", (6, 8, 10, 13)),
        ("HG - OG - CB - 2:CA", (14, 13, 10, 8)),
    ],
)
def test_torsions_of_serine_dipeptide(name: str, atoms: Quadruple) -> None:
    """Atoms 0-5 are of the cap, 6 N, 8 CA, 10 CB, 13 OG, 15 C, 17 N and 19 C of the other."""
    assert find_torsion(peptide("ACE-SER-NME"), name) == atoms


@pytest.mark.parametrize(
    ("sequence", "name", "atoms"),
    [
        ("KS", "phi", "1:C 2:N 2:CA 2:C"),
        ("KS", "psi", "1:N 1:CA 1:C 2:N"),
        ("KS", "omega", "1:CA 1:C 2:N 2:CA"),
        ("KS", "chi1", "1:N 1:CA 1:CB 1:CG"),
        ("KS", "chi2", "1:CA 1:CB 1:CG 1:CD"),
        ("KS", "chi3", "1:CB 1:CG 1:CD 1:CE"),
        ("KS", "chi4", "1:CG 1:CD 1:CE 1:NZ"),
        ("KS", "chi1:2", "2:N 2:CA 2:CB 2:OG"),
        ("KS", "chi2:1", "1:CA 1:CB 1:CG 1:CD"),
        ("GAC", "chi1", "3:N 3:CA 3:CB 3:SG"),
        ("RT", "chi5", "1:CD 1:NE 1:CZ 1:NH1"),
        ("RT", "chi1:2", "2:N 2:CA 2:CB 2:OG1"),
        ("DIL-DVA", "chi1", "1:N 1:CA 1:CB 1:CG1"),
        ("DIL-DVA", "chi2", "1:CA 1:CB 1:CG1 1:CD1"),
        ("DIL-DVA", "chi1:2", "2:N 2:CA 2:CB 2:CG1"),
        ("ACE-ASH-HIP-NME", "chi2:2", "2:CA 2:CB 2:CG 2:OD1"),
        ("ACE-ASH-HIP-NME", "chi2:3", "3:CA 3:CB 3:CG 3:ND1"),
    ],
)
def test_torsions_of_side_chains(sequence: str, name: str, atoms: str) -> None:
    molecule = peptide(sequence)
    assert named(molecule, find_torsion(molecule, name)) == atoms


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chi2", "got no residue with it;"),
        ("chi1:1", "got none there;"),
        ("phi:0", "got none there;"),
        ("phi:9", "got none there;"),
        ("chi6", "got 1 atoms;"),
        ("CA-CB-OG", "got 3 atoms;"),
        ("", "got 1 atoms;"),
        ("N-CA-CB-OG", "got 2 atoms named N; write e.g. 2:N"),
        ("CH3-2:N-2:CA-CB", "got 2 atoms named CH3; write e.g. 2:CH3"),
        ("2:N-2:CA-CB-HG", "got CB and HG, which are not bonded;"),
        ("CB-2:CA-CB-OG", "got CB twice;"),
        ("2:N-2:CA-CB-OX", "got 'OX'; the nearest is O"),
        ("2:N-2:CA-CB-SG", "got 'SG'; the nearest is OG"),
        ("7:N-2:CA-CB-OG", "expected one of HH31, CH3, .*, got '7:N'; the nearest is N"),
    ],
)
def test_what_is_no_torsion_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        find_torsion(peptide("ACE-SER-NME"), name)
    assert "\n" not in str(refused.value)
    assert repr(name) in str(refused.value)


def test_no_torsion_leads_from_one_chain_into_the_next() -> None:
    whole = peptide("ACE-CYX-ALA-CYX-NME")
    place = list(zip(whole.residue_index, whole.atom_names, strict=True))
    cut = {place.index((2, "C")), place.index((3, "N"))}
    # The disulphide holds the two chains together.
    molecule = replace(whole, bonds=tuple(bond for bond in whole.bonds if set(bond) != cut))
    assert named(molecule, find_torsion(molecule, "psi:4")) == "4:N 4:CA 4:C 5:N"
    for name in ("psi:3", "omega:3", "phi:4"):
        assert find_torsion(whole, name)
        with pytest.raises(InputError, match="got none there"):
            find_torsion(molecule, name)
    assert len(molecule.omegas) == len(whole.omegas) - 1


def test_a_companion_turns_the_bond_beside() -> None:
    serine = peptide("ACE-SER-NME")
    for name in ("phi", "psi", "chi1"):
        torsion = find_torsion(serine, name)
        companion = find_companion(serine, torsion)
        assert set(companion[1:3]) & set(torsion[1:3]) == {8}
        assert companion[1:3] != torsion[1:3]
        assert all(serine.elements[atom] != "H" for atom in companion)
    # Phi comes first among those of lysine, but is far from the end of the side chain.
    lysine = peptide("ACE-LYS-NME")
    companion = find_companion(lysine, find_torsion(lysine, "chi4"))
    assert named(lysine, companion) == "2:CB 2:CG 2:CD 2:CE"


def test_the_companion_of_butanes_torsion_is_a_methyl_group() -> None:
    substance = alkane(4)
    butane = Molecule.from_topology("butane", substance.topology(), substance.positions_nm)
    first, second, third, fourth = find_companion(butane, find_torsion(butane, "C1-C2-C3-C4"))
    assert {second, third} in ({0, 1}, {2, 3})
    bonds = set(butane.bonds)
    assert {(min(b), max(b)) for b in ((first, second), (second, third), (third, fourth))} <= bonds
    assert first != third
    assert second != fourth


def test_a_companion_turns_neither_a_peptide_bond_nor_a_ring() -> None:
    amide = peptide("ACE-NME")
    amide = replace(amide, bonds=tuple(sorted(amide.bonds)))  # The peptide bond comes early.
    torsion = find_torsion(amide, "1:HH31-1:CH3-C-O")
    second, third = find_companion(amide, torsion)[1:3]
    assert {amide.atom_names[second], amide.atom_names[third]} == {"N", "CH3"}
    ring = [(0, 1), (1, 2), (2, 3), (0, 3)]
    methyl = [(0, 4), (4, 5), (4, 6), (4, 7)]
    hydrogens = [(0, 8), *((i, 7 + 2 * i + j) for i in (1, 2, 3) for j in (0, 1))]
    methylcyclobutane = skeleton("C" * 5 + "H" * 10, [*ring, *methyl, *hydrogens])
    with pytest.raises(InputError, match="expected two bonds that turn, got one"):
        find_companion(methylcyclobutane, find_torsion(methylcyclobutane, "C1-C0-C4-H5"))


def test_no_torsion_is_about_a_bond_of_a_linear_atom() -> None:
    """In pentanenitrile, C0-C1-C2-C3-C4#N5, that about C3-C4 is undefined."""
    hydrogens = [(i, 6 + 2 * i + j) for i in range(4) for j in (0, 1)]
    nitrile = skeleton("CCCCCN" + "H" * 9, [*((i, i + 1) for i in range(5)), *hydrogens, (0, 14)])
    with pytest.raises(InputError, match="got a straight line at C4;"):
        find_torsion(nitrile, "C2-C3-C4-N5")
    assert find_companion(nitrile, find_torsion(nitrile, "C1-C2-C3-C4")) == (0, 1, 2, 3)
    assert find_companion(nitrile, find_torsion(nitrile, "C0-C1-C2-C3")) == (1, 2, 3, 4)
    turning = replace(nitrile, torsions=((6, 0, 1, 2), (6, 0, 1, 2))).rotatable_torsions
    assert turning == ((0, 1, 2, 3), (1, 2, 3, 4))


def test_ethane_has_no_second_torsion() -> None:
    substance = alkane(2)
    ethane = Molecule.from_topology("ethane", substance.topology(), substance.positions_nm)
    with pytest.raises(InputError, match="expected two bonds that turn, got one"):
        find_companion(ethane, find_torsion(ethane, "H1-C1-C2-H4"))


def test_distances_and_angles_are_those_of_the_atoms() -> None:
    serine = peptide("ACE-SER-NME")
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(50, serine.num_atoms, 3))
    length = find_order_parameter(serine, "distance(1:O, OG)")
    assert named(serine, length.atoms) == "1:O 2:OG"
    assert (length.unit, length.is_periodic) == ("nm", False)
    one, other = (positions[:, atom] for atom in length.atoms)
    np.testing.assert_allclose(length.values(positions), np.linalg.norm(one - other, axis=1))
    angle = find_order_parameter(serine, "angle(2:N,2:CA,2:C)")
    n, ca, c = (positions[:, atom] for atom in angle.atoms)
    cosine = np.einsum("ij,ij->i", n - ca, c - ca)
    cosine /= np.linalg.norm(n - ca, axis=1) * np.linalg.norm(c - ca, axis=1)
    np.testing.assert_allclose(angle.values(positions), np.arccos(cosine))
    assert (angle.unit, angle.is_periodic) == ("rad", False)
    torsion = find_order_parameter(serine, "2:N-2:CA-CB-OG")
    assert (torsion.atoms, torsion.unit, torsion.is_periodic) == ((6, 8, 10, 13), "rad", True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chj1", "expected one of phi, psi, omega, chi1, .*; the nearest is chi1"),
        ("distance(1:O)", r"distance\(1:O\) of ACE-SER-NME: expected 2 different atoms, got O;"),
        ("angle(1:O,OG,1:O)", "expected 3 different atoms"),
        ("distance(O,OG)", "expected one atom, got 2 atoms named O; write e.g. 2:O"),
        ("distance(OG,SG)", "got 'SG'; the nearest is OG"),
        ("dihedral(1:O,OG)", "expected one of phi, psi, omega, chi1"),
    ],
)
def test_what_is_no_order_parameter_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        find_order_parameter(peptide("ACE-SER-NME"), name)
    assert "\n" not in str(refused.value)


def test_biased_torsions_about_bonds_between_planar_atoms_are_refused() -> None:
    serine = peptide("ACE-SER-NME")
    phi, omega, chi = (find_torsion(serine, name) for name in ("phi", "omega", "chi1"))
    require_turning(serine)
    require_turning(replace(serine, torsions=(phi, chi)))
    require_turning(peptide("ACE-PRO-NME"))
    # Acetophenone, its ring first, turns about the bond to its methyl alone.
    ring = [(i, (i + 1) % 6) for i in range(6)]
    hydrogens = [*((i, i + 8) for i in range(1, 6)), *((7, i) for i in (14, 15, 16))]
    ketone = skeleton("CCCCCCCCOHHHHHHHH", [*ring, (0, 6), (6, 7), (6, 8), *hydrogens])
    methyl, carbonyl = (0, 6, 7, 14), (1, 0, 6, 7)
    require_turning(replace(ketone, torsions=(methyl, methyl)))
    for refused in (
        replace(serine, torsions=(phi, omega)),
        replace(serine, torsions=(omega, phi)),
        replace(ketone, torsions=(carbonyl, methyl)),
    ):
        with pytest.raises(InputError, match="expected torsions that models let turn"):
            require_turning(refused)
