import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from bnce_dist.chem.geometry import dihedral, signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.core.errors import InputError

# Cahn-Ingold-Prelog priorities and descriptors of the L amino acids, from textbooks: L-cysteine
# is R because sulphur outranks the carboxyl group; L-Ile is (2S,3S), L-Thr is (2S,3R).
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
}


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


def write_pdb(path: Path, molecule: Molecule, positions_nm: np.ndarray | None = None) -> Path:
    positions = molecule.positions_nm if positions_nm is None else positions_nm
    with path.open("w") as stream:
        app.PDBFile.writeFile(molecule.topology, positions * 10, stream, keepIds=True)
    return path


def descriptor(molecule: Molecule, residue: int, centre: str) -> str:
    """Return R or S: seen with the lowest priority behind, is 1 -> 2 -> 3 clockwise?"""
    index = {
        name: atom
        for atom, (name, owner) in enumerate(
            zip(molecule.atom_names, molecule.residue_index, strict=True)
        )
        if owner == residue
    }
    names = PRIORITIES[molecule.residue_names[residue], centre]
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
        ("AC", 24, 12, 0),
        ("ET", 32, 17, -1),
        ("KS", 36, 16, 1),
    ],
)
def test_composition_and_charge(sequence: str, num_atoms: int, num_heavy: int, charge: int) -> None:
    molecule = Molecule.from_sequence(sequence)
    assert molecule.num_atoms == num_atoms
    assert sum(element != "H" for element in molecule.elements) == num_heavy
    system = build_system(molecule)
    nonbonded = next(f for f in system.getForces() if hasattr(f, "getExceptionParameters"))
    charges = [nonbonded.getParticleParameters(i)[0]._value for i in range(num_atoms)]
    assert sum(charges) == pytest.approx(charge, abs=1e-4)


def test_uncapped_dipeptide_torsions_cross_the_peptide_bond() -> None:
    molecule = Molecule.from_sequence("AC")
    labels = list(zip(molecule.residue_index, molecule.atom_names, strict=True))
    assert [labels[i] for i in molecule.phi] == [(0, "C"), (1, "N"), (1, "CA"), (1, "C")]
    assert [labels[i] for i in molecule.psi] == [(0, "N"), (0, "CA"), (0, "C"), (1, "N")]
    # Ammonium and methyl hydrogens are interchangeable, the two of CH2 are not.
    groups = [[molecule.atom_names[i] for i in group] for group in molecule.equivalent_hydrogens]
    assert groups == [["H1", "H2", "H3"], ["HB1", "HB2", "HB3"]]


@pytest.mark.parametrize("sequence", ["AC", "IT", "TI"])
def test_handedness_follows_the_textbook(sequence: str) -> None:
    molecule = Molecule.from_sequence(sequence)
    positions = torch.from_numpy(molecule.positions_nm)
    centres = {
        (molecule.residue_index[c[0]], molecule.atom_names[c[0]]): c
        for c in molecule.chirality_centres
    }
    expected = {
        (residue, centre)
        for residue, name in enumerate(molecule.residue_names)
        for owner, centre in PRIORITIES
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
    again = Molecule.from_sequence("ace-ala-nme")
    np.testing.assert_array_equal(again.positions_nm, alanine.positions_nm)
    data = pickle.dumps(alanine)
    assert len(data) < 5000
    copy = pickle.loads(data)
    assert copy == alanine
    assert copy.topology.getNumBonds() == 21


def test_identity_tells_molecules_apart(alanine: Molecule) -> None:
    others = [Molecule.from_sequence(sequence) for sequence in ("AG", "GA", "ACE-GLY-NME")]
    identities = {molecule.identity for molecule in (alanine, *others)}
    assert len(identities) == 4


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "ET", "HN"])
def test_pdb_round_trip(sequence: str, tmp_path: Path) -> None:
    molecule = Molecule.from_sequence(sequence)
    # Atoms in another order within each residue, as other programs write them.
    lines = write_pdb(tmp_path / "ordered.pdb", molecule).read_text().splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    residues = [list(group) for _, group in itertools.groupby(atoms, lambda line: line[22:26])]
    shuffled = tmp_path / "shuffled.pdb"
    shuffled.write_text("\n".join(line for group in residues for line in group[::-1]) + "\nEND\n")
    read = Molecule.from_pdb(shuffled)
    assert read.identity == molecule.identity
    np.testing.assert_allclose(read.positions_nm, molecule.positions_nm, atol=2e-3)


def test_pdb_with_missing_atoms_names_them(alanine: Molecule, tmp_path: Path) -> None:
    lines = write_pdb(tmp_path / "whole.pdb", alanine).read_text().splitlines(keepends=True)
    torn = tmp_path / "torn.pdb"
    torn.write_text("".join(line for line in lines if line[12:16].strip() not in ("CB", "HB2")))
    with pytest.raises(InputError, match="got ALA 2 misses CB, HB2;"):
        Molecule.from_pdb(torn)


def test_pdb_of_a_mirror_image_is_of_d_residues(alanine: Molecule, tmp_path: Path) -> None:
    mirrored = write_pdb(tmp_path / "d.pdb", alanine, alanine.positions_nm * [-1, 1, 1])
    molecule = Molecule.from_pdb(mirrored)
    assert molecule.name == "ACE-DAL-NME"
    assert molecule.identity != alanine.identity
    (centre,) = molecule.chirality_centres
    assert signed_volume(torch.from_numpy(molecule.positions_nm), centre) > 0
    assert signed_volume(torch.from_numpy(alanine.positions_nm), centre) < 0


def test_pdb_of_something_else(alanine: Molecule, tmp_path: Path) -> None:
    text = write_pdb(tmp_path / "alanine.pdb", alanine).read_text()
    unknown = tmp_path / "unknown.pdb"
    unknown.write_text(text.replace("ALA", "UNK"))
    with pytest.raises(InputError, match="got 'UNK'"):
        Molecule.from_pdb(unknown)
    water = tmp_path / "water.pdb"
    oxygen = "HETATM   23  O   HOH B   1       9.000   9.000   9.000  1.00  0.00           O"
    water.write_text(text.replace("END\n", "") + f"TER\n{oxygen}\nEND\n")
    with pytest.raises(InputError, match="expected one chain, got 2 chains"):
        Molecule.from_pdb(water)
    broken = tmp_path / "broken.pdb"
    broken.write_text("not a structure\n")
    with pytest.raises(InputError, match=r"broken\.pdb"):
        Molecule.from_pdb(broken)
    with pytest.raises(InputError, match=r"absent\.pdb: expected a readable PDB file, got nothing"):
        Molecule.from_pdb(tmp_path / "absent.pdb")


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("ACE-ALX-NME", "got 'ALX'; did you mean ALA\\?"),
        ("ACE-HSE-NME", "got 'HSE'; did you mean HI"),
        ("AZ", "got 'Z'"),
        ("ALA-ACE", "expected ACE only first and NME only last, got ACE as residue 2"),
        ("A", "expected at least two residues, got 1"),
        ("", "expected at least two residues, got 0"),
        ("ACE--NME", "got ''"),
    ],
)
def test_bad_sequences(sequence: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Molecule.from_sequence(sequence)


def test_caps_alone_have_no_torsion_to_bias() -> None:
    with pytest.raises(InputError, match="expected a residue with a phi torsion"):
        _ = Molecule.from_sequence("ACE-NME").phi


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "ET", "KS", "GD", "RE", "HID-HIP", "WN"])
def test_formal_charges_add_up_to_those_of_the_force_field(sequence: str) -> None:
    # The graph is enough: no time is spent on a structure.
    graph = Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))
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
    molecule = Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))
    for atom, name in enumerate(molecule.atom_names):
        if molecule.residue_index[atom] == residue:
            assert molecule.formal_charges[atom] == charges.get(name, 0.0)
