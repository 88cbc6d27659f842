import dataclasses
import functools
import math
import pickle
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from bnce_dist.chem.elements import COVALENT_RADIUS_NM, MASS_DALTON
from bnce_dist.chem.geometry import dihedral, signed_volume
from bnce_dist.chem.graph import formal_charges, stereocentres
from bnce_dist.chem.initial_structure import build_positions
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.templates import D_RESIDUES, chain_templates, parse_sequence
from bnce_dist.core.errors import InputError

# Cahn-Ingold-Prelog priorities and descriptors of the L amino acids, from textbooks: L-cysteine
# is R because sulphur outranks the carboxyl group; L-Ile is (2S,3S), L-Thr is (2S,3R). A mirror
# image has all of them reversed.
PRIORITIES = {
    ("ALA", "CA"): ("N", "C", "CB", "HA"),
    ("CYS", "CA"): ("N", "CB", "C", "HA"),
    ("ILE", "CA"): ("N", "C", "CB", "HA"),
    ("THR", "CA"): ("N", "C", "CB", "HA"),
    ("ILE", "CB"): ("CA", "CG1", "CG2", "HB"),
    ("THR", "CB"): ("OG1", "CA", "CG2", "HB"),
}
DESCRIPTORS = {
    ("ALA", "CA"): "S",
    ("CYS", "CA"): "R",
    ("ILE", "CA"): "S",
    ("THR", "CA"): "S",
    ("ILE", "CB"): "S",
    ("THR", "CB"): "R",
    ("DAL", "CA"): "R",
    ("DCY", "CA"): "S",
    ("DIL", "CA"): "R",
    ("DTH", "CA"): "R",
    ("DIL", "CB"): "R",
    ("DTH", "CB"): "S",
}


build = functools.cache(Molecule.from_sequence)
"""Structures take seconds: every sequence is built once."""


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return build("ACE-ALA-NME")


def peptide(sequence: str) -> Molecule:
    # The graph is enough: no time is spent on a structure.
    return Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))


def descriptor(molecule: Molecule, residue: int, centre: str) -> str:
    """Return R or S: seen with the lowest priority behind, is 1 -> 2 -> 3 clockwise?"""
    index = {
        name: atom
        for atom, (name, owner) in enumerate(
            zip(molecule.atom_names, molecule.residue_index, strict=True)
        )
        if owner == residue
    }
    name = molecule.residue_names[residue]
    names = PRIORITIES[D_RESIDUES.get(name, name), centre]
    first, second, third, lowest = (molecule.positions_nm[index[name]] for name in names)
    viewpoint = molecule.positions_nm[index[centre]] - lowest
    turn = np.cross(second - first, third - second) @ viewpoint
    # Seen from the viewpoint, a counter-clockwise turn points towards the observer.
    return "S" if turn > 0 else "R"


def test_alanine_dipeptide_has_ambers_order(alanine: Molecule) -> None:
    expected = "HH31 CH3 HH32 HH33 C O N H CA HA CB HB1 HB2 HB3 C O N H CH3 HH31 HH32 HH33"
    assert alanine.atom_names == tuple(expected.split())
    assert alanine.phi == (4, 6, 8, 14)
    assert alanine.psi == (6, 8, 14, 16)
    assert alanine.equivalent_hydrogens == ((0, 2, 3), (11, 12, 13), (19, 20, 21))
    assert len(alanine.bonds) == 21
    assert (4, 6) in alanine.bonds
    # C6 H12 N2 O2, IUPAC atomic masses.
    mass = 6 * 12.011 + 12 * 1.008 + 2 * 14.007 + 2 * 15.999
    assert alanine.masses_dalton.sum() == pytest.approx(mass, abs=0.01)


@pytest.mark.parametrize(
    ("sequence", "num_atoms", "num_heavy", "charge"),
    [
        ("ACE-ALA-NME", 22, 10, 0),
        ("ACE-ALA-GLY-NME", 29, 14, 0),
        ("ACE-LYS-NH2", 31, 13, 1),
        ("AC", 24, 12, 0),
        ("ET", 32, 17, -1),
        ("KS", 36, 16, 1),
    ],
)
def test_composition_and_charge(sequence: str, num_atoms: int, num_heavy: int, charge: int) -> None:
    molecule = build(sequence)
    assert molecule.num_atoms == num_atoms
    assert sum(element != "H" for element in molecule.elements) == num_heavy
    system = build_system(molecule)
    nonbonded = next(f for f in system.getForces() if hasattr(f, "getExceptionParameters"))
    charges = [nonbonded.getParticleParameters(i)[0]._value for i in range(num_atoms)]
    assert sum(charges) == pytest.approx(charge, abs=1e-4)


def test_uncapped_dipeptide_torsions_cross_the_peptide_bond() -> None:
    molecule = build("AC")
    labels = list(zip(molecule.residue_index, molecule.atom_names, strict=True))
    assert [labels[i] for i in molecule.phi] == [(0, "C"), (1, "N"), (1, "CA"), (1, "C")]
    assert [labels[i] for i in molecule.psi] == [(0, "N"), (0, "CA"), (0, "C"), (1, "N")]
    # Ammonium and methyl hydrogens are interchangeable, the two of CH2 are not.
    groups = [[molecule.atom_names[i] for i in group] for group in molecule.equivalent_hydrogens]
    assert groups == [["H1", "H2", "H3"], ["HB1", "HB2", "HB3"]]


@pytest.mark.parametrize("sequence", ["AC", "IT", "TI", "DTH-DIL", "DCY-ALA"])
def test_handedness_follows_the_textbook(sequence: str) -> None:
    molecule = build(sequence)
    positions = torch.from_numpy(molecule.positions_nm)
    centres = {
        (molecule.residue_index[c[0]], molecule.atom_names[c[0]]): c
        for c in molecule.chirality_centres
    }
    expected = {
        (residue, centre)
        for residue, name in enumerate(molecule.residue_names)
        for owner, centre in DESCRIPTORS
        if owner == name
    }
    assert set(centres) == expected
    for (residue, centre), quadruple in centres.items():
        name = molecule.residue_names[residue]
        assert descriptor(molecule, residue, centre) == DESCRIPTORS[name, centre]
        assert signed_volume(positions, quadruple) > 0.001


def test_the_structure_is_a_trans_minimum(alanine: Molecule) -> None:
    positions = torch.from_numpy(alanine.positions_nm)
    for omega in alanine.omegas:
        assert abs(dihedral(positions, omega)) > math.radians(160)
    force_field = ForceField.from_system(build_system(alanine), 300.0)
    _, forces = force_field.energy_and_forces_kj_mol(positions[None])
    assert forces.abs().max() < 5.0  # kJ/mol/nm; a bond of 0.1 pm strain gives 30
    for i, j in alanine.bonds:
        assert 0.09 < np.linalg.norm(alanine.positions_nm[i] - alanine.positions_nm[j]) < 0.16


def test_is_reproducible_and_pickles_small(alanine: Molecule) -> None:
    again = build_positions(alanine.topology, alanine.chirality_centres, alanine.omegas)
    np.testing.assert_array_equal(again, alanine.positions_nm)
    data = pickle.dumps(alanine)
    assert len(data) < 5000
    copy = pickle.loads(data)
    assert copy == alanine
    assert copy.topology.getNumBonds() == 21


def test_a_molecule_that_was_built_before_has_positions_of_its_own(alanine: Molecule) -> None:
    moved = Molecule.from_sequence("ace-ala-nme")
    moved.positions_nm[:] += 1.0
    again = Molecule.from_sequence("ACE-ALA-NME")
    np.testing.assert_array_equal(again.positions_nm, alanine.positions_nm)


def test_identity_tells_molecules_apart(alanine: Molecule) -> None:
    others = [build(sequence) for sequence in ("AG", "GA", "ACE-GLY-NME")]
    identities = {molecule.identity for molecule in (alanine, *others)}
    assert len(identities) == 4


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "IT", "DTH-DIL", "CYX-CYX"])
def test_identity_is_that_of_the_graph_and_the_hand(sequence: str) -> None:
    molecule = build(sequence)
    same = Molecule.from_topology("other", molecule.topology, molecule.positions_nm)
    assert same.identity == molecule.identity
    assert set(map(frozenset, same.bonds)) == set(map(frozenset, molecule.bonds))
    mirrored = Molecule.from_topology("other", molecule.topology, -molecule.positions_nm)
    assert mirrored.identity != molecule.identity


def test_identity_of_a_mirror_image_is_that_of_its_name(alanine: Molecule) -> None:
    graph = peptide("ACE-DAL-NME")
    mirrored = Molecule.from_topology("mirrored", alanine.topology, -alanine.positions_nm)
    assert mirrored.identity == graph.identity != alanine.identity


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "DTH-DIL"])
def test_the_state_survives_a_file_without_code(sequence: str, tmp_path: Path) -> None:
    molecule = dataclasses.replace(build(sequence), torsions=((0, 1, 2, 3), (1, 2, 3, 4)))
    torch.save(molecule.to_state(), tmp_path / "state.pt")
    again = Molecule.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again == molecule
    assert again.identity == molecule.identity
    np.testing.assert_array_equal(again.positions_nm, molecule.positions_nm)


@pytest.mark.parametrize(
    ("sequence", "charge"),
    [
        ("ACE-ASH-NME", 0),
        ("ACE-GLH-NME", 0),
        ("ACE-LYN-NME", 0),
        ("ACE-CYX-GLY-CYX-NME", 0),
        ("ACE-ASP-NME", -1),
        ("ACE-DLY-NME", 1),
    ],
)
def test_variants_have_the_charge_of_their_protons(sequence: str, charge: int) -> None:
    assert sum(peptide(sequence).formal_charges) == charge


def test_a_disulfide_is_a_bond_of_two_sulphurs() -> None:
    molecule = build("CYX-CYX")
    sulphurs = [i for i, element in enumerate(molecule.elements) if element == "S"]
    assert tuple(sulphurs) in molecule.bonds
    assert "HG" not in molecule.atom_names
    first, second = molecule.positions_nm[sulphurs]
    assert np.linalg.norm(first - second) == pytest.approx(0.204, abs=0.005)
    # Its torsion is near 90 degrees in any structure without strain; never trans.
    betas = [i for i, name in enumerate(molecule.atom_names) if name == "CB"]
    torsion = dihedral(
        torch.from_numpy(molecule.positions_nm), (betas[0], *sulphurs, betas[1])
    ).abs()
    assert math.radians(50) < torsion < math.radians(130)


@pytest.mark.parametrize("sequence", ["ACE-CYX-NME", "CYX-ALA-CYX-CYX"])
def test_cysteines_without_a_partner_are_refused(sequence: str) -> None:
    with pytest.raises(InputError, match=r"expected no CYX .*, or two bonded to each other"):
        Molecule.from_sequence(sequence)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("ACE-ALX-NME", "got 'ALX'; did you mean ALA\\?"),
        ("ACE-HSE-NME", "got 'HSE'; did you mean HI"),
        ("AZ", "got 'Z'"),
        ("ALA-ACE", "expected ACE only first, NME and NH2 only last, got ACE as residue 2"),
        ("ACE-NH2-ALA", "NME and NH2 only last, got NH2 as residue 2"),
        ("A", "expected at least two residues, got 1"),
        ("", "expected at least two residues, got 0"),
        ("ACE--NME", "got ''"),
        ("ASH-ALA", "expected ASH inside the chain or beside a cap, got it at the end"),
        ("ACE-DAX-NME", "got 'DAX'; did you mean DA"),
    ],
)
def test_bad_sequences(sequence: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Molecule.from_sequence(sequence)


def test_a_chain_too_long_to_be_built_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"at most 600 atoms, got 703 in 70 residues.*target\.pdb"):
        Molecule.from_sequence(70 * "A")


def test_a_molecule_without_a_structure_is_the_same_molecule() -> None:
    unplaced, placed = Molecule.unplaced("ks"), Molecule.from_sequence("KS")
    assert unplaced == placed
    assert unplaced.identity == placed.identity
    assert not unplaced.positions_nm.any()


def test_caps_alone_have_no_torsion_to_bias() -> None:
    with pytest.raises(InputError, match="expected a residue with a phi torsion"):
        _ = Molecule.from_sequence("ACE-NME").phi


@pytest.mark.parametrize(
    "sequence",
    [
        *("ACE-ALA-NME", "ACE-ALA-NH2", "ET", "KS", "GD", "RE", "HID-HIP", "WN"),
        *("ACE-ASH-LYN-NME", "CYX-GLH-CYX"),
    ],
)
def test_formal_charges_add_up_to_those_of_the_force_field(sequence: str) -> None:
    graph = peptide(sequence)
    system = build_system(graph)
    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    charges = [nonbonded.getParticleParameters(i)[0]._value for i in range(graph.num_atoms)]
    assert sum(graph.formal_charges) == pytest.approx(sum(charges), abs=1e-3)


@pytest.mark.parametrize(
    ("sequence", "residue", "charges"),
    [
        ("PW", 0, {"N": 1}),
        ("PW", 1, {"O": -1 / 2, "OXT": -1 / 2}),
        ("ARG-HIP", 0, {"N": 1, "NE": 1 / 3, "NH1": 1 / 3, "NH2": 1 / 3}),
        ("ARG-HIP", 1, {"ND1": 1 / 2, "NE2": 1 / 2, "O": -1 / 2, "OXT": -1 / 2}),
        ("ACE-ASP-NME", 1, {"OD1": -1 / 2, "OD2": -1 / 2}),
    ],
)
def test_formal_charges_are_shared_by_atoms_that_resonance_makes_alike(
    sequence: str, residue: int, charges: dict[str, float]
) -> None:
    molecule = peptide(sequence)
    for atom, name in enumerate(molecule.atom_names):
        if molecule.residue_index[atom] == residue:
            assert molecule.formal_charges[atom] == charges.get(name, 0.0)


UREA = [(0, 1), (0, 2), (0, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
HYDANTOIN_RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]


@pytest.mark.parametrize(
    ("elements", "bonds", "charge"),
    [
        ("CONNHHHH", UREA, 0),
        ("CSNNHHHH", UREA, 0),  # thiourea
        ("CNNNHHHHH", [*UREA, (1, 8)], 0),  # guanidine
        ("CNNNHHHHHH", [*UREA, (1, 8), (1, 9)], 1),  # guanidinium
        ("CNCCNOOHHHH", [*HYDANTOIN_RING, (0, 5), (2, 6), (1, 7), (3, 8), (3, 9), (4, 10)], 0),
    ],
)
def test_carbons_between_nitrogens_have_the_charge_of_the_textbook(
    elements: str, bonds: list[tuple[int, int]], charge: int
) -> None:
    assert sum(formal_charges(list(elements), bonds)) == charge


def saturated(
    elements: str, bonds: list[tuple[int, int]]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Fill up carbons with hydrogens to four bonds."""
    atoms, filled = list(elements), list(bonds)
    for atom, element in enumerate(elements):
        missing = 4 - sum(atom in bond for bond in bonds) if element == "C" else 0
        for _ in range(missing):
            filled.append((atom, len(atoms)))
            atoms.append("H")
    return atoms, filled


@pytest.mark.parametrize(
    ("elements", "bonds", "centres"),
    [
        ("CCCC", [(0, 1), (0, 2), (0, 3)], set()),  # isobutane
        ("CCCCO", [(0, 1), (1, 2), (2, 3), (1, 4)], {1}),  # 2-butanol
        ("CCCFF", [(0, 1), (1, 2), (1, 3), (1, 4)], set()),  # 2,2-difluoropropane
        # Meso or not, 2,3-difluorobutane has two.
        ("CCCCFF", [(0, 1), (1, 2), (2, 3), (1, 4), (2, 5)], {1, 2}),
        # 5-methylnonane has two equal chains; one carbon more at a far end tells them apart.
        ("C" * 10, [*((i, i + 1) for i in range(8)), (4, 9)], set()),
        ("C" * 11, [*((i, i + 1) for i in range(9)), (4, 10)], {4}),
        # Methylcyclohexane has none, 1,3-dimethylcyclohexane two.
        ("C" * 7, [*((i, (i + 1) % 6) for i in range(6)), (0, 6)], set()),
        ("C" * 8, [*((i, (i + 1) % 6) for i in range(6)), (0, 6), (2, 7)], {0, 2}),
    ],
)
def test_stereocentres_are_those_of_the_textbook(
    elements: str, bonds: list[tuple[int, int]], centres: set[int]
) -> None:
    assert {centre[0] for centre in stereocentres(*saturated(elements, bonds))} == centres


def test_a_molecule_without_residues_knows_its_hand() -> None:
    """Bromochlorofluoromethane, whose priorities are the order of its atoms: Br, Cl, F, H."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [
        topology.addAtom(name, app.Element.getBySymbol(name), residue)
        for name in ("C", "Br", "Cl", "F", "H")
    ]
    for atom in atoms[1:]:
        topology.addBond(atoms[0], atom)
    corners = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    lengths = np.array([0.19, 0.176, 0.136, 0.109])[:, None]
    positions = np.concatenate([np.zeros((1, 3)), lengths * corners])
    molecule = Molecule.from_topology("one", topology, positions)
    mirrored = Molecule.from_topology("other", topology, -positions)
    # Seen with hydrogen behind, Br to Cl to F is clockwise in the R form, of negative volume.
    (first,), (second,) = molecule.chirality_centres, mirrored.chirality_centres
    seen = np.cross(corners[1] - corners[0], corners[2] - corners[1]) @ -corners[3]
    assert first == ((0, 1, 2, 3) if seen > 0 else (0, 1, 3, 2))
    assert second == ((0, 1, 3, 2) if seen > 0 else (0, 1, 2, 3))
    assert molecule.identity != mirrored.identity
    assert molecule.equivalent_hydrogens == ()


def test_topologies_that_are_no_single_molecule_are_refused(alanine: Molecule) -> None:
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for name in ("C", "H", "H", "Na"):
        topology.addAtom(name, app.Element.getBySymbol(name), residue)
    with pytest.raises(InputError, match="got Na as atom 4"):
        Molecule.from_topology("salt", topology, np.zeros((4, 3)))
    without_bonds = dataclasses.replace(alanine, bonds=alanine.bonds[1:]).topology
    with pytest.raises(InputError, match="got 22 atoms in 2 pieces"):
        Molecule.from_topology("torn", without_bonds, alanine.positions_nm)


def test_masses_are_openmms():
    assert MASS_DALTON.keys() == COVALENT_RADIUS_NM.keys()
    for symbol, mass in MASS_DALTON.items():
        assert mass == app.Element.getBySymbol(symbol).mass._value


def test_no_hydrogen_is_caught_between_the_oxygens_of_a_start_structure() -> None:
    """In the first structure that the bonds alone allow, it holds GLU's oxygens at 78 degrees."""
    molecule = Molecule.from_sequence("ET")
    place = {
        name: position
        for name, index, position in zip(
            molecule.atom_names, molecule.residue_index, molecule.positions_nm, strict=True
        )
        if index == 0
    }
    one, other = place["OE1"] - place["CD"], place["OE2"] - place["CD"]
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert math.degrees(math.acos(cosine)) == pytest.approx(126, abs=10)
