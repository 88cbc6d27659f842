import functools
import gzip
import itertools
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from openmm import app

from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.pdb_file import read_residues
from bnce_dist.chem.templates import VARIANTS, chain_templates
from bnce_dist.core.errors import InputError

build = functools.cache(Molecule.from_sequence)
"""Structures take seconds: every sequence is built once."""


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return build("ACE-ALA-NME")


def write_pdb(path: Path, molecule: Molecule, positions_nm: np.ndarray | None = None) -> Path:
    positions = molecule.positions_nm if positions_nm is None else positions_nm
    with path.open("w") as stream:
        app.PDBFile.writeFile(molecule.topology, positions * 10, stream, keepIds=True)
    return path


@pytest.mark.parametrize(
    "sequence", ["ACE-ALA-NME", "ET", "HN", "DTH-DIL", "CYX-CYX", "ACE-ASH-NME", "ACE-ALA-NH2"]
)
def test_pdb_round_trip(sequence: str, tmp_path: Path) -> None:
    molecule = build(sequence)
    # Atoms in another order within each residue, as other programs write them.
    text = write_pdb(tmp_path / "ordered.pdb", molecule).read_text()
    # The Protein Data Bank has one name for a residue with and without its proton.
    lines = text.replace("CYX", "CYS").replace("ASH", "ASP").splitlines()
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


@pytest.mark.parametrize("whole", [1, -1])
def test_pdb_with_one_of_two_centres_of_the_other_hand_is_refused(
    whole: int, tmp_path: Path
) -> None:
    molecule = build("IT")
    positions = whole * molecule.positions_nm
    first, second = (molecule.atom_names.index(name) for name in ("CG1", "CG2"))
    positions[[first, second]] = positions[[second, first]]
    path = write_pdb(tmp_path / "allo.pdb", molecule, positions)
    with pytest.raises(InputError, match="got ILE 1 with CB of the other hand"):
        Molecule.from_pdb(path)


def test_pdb_of_a_mirrored_variant_is_refused(tmp_path: Path) -> None:
    molecule = build("ACE-ASH-NME")
    path = write_pdb(tmp_path / "mirrored.pdb", molecule, -molecule.positions_nm)
    with pytest.raises(InputError, match="got ASP 2 with CA of the other hand"):
        Molecule.from_pdb(path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pdb_tells_variants_by_their_hydrogens(variant: str, tmp_path: Path) -> None:
    parent = {"ASH": "ASP", "CYX": "CYS", "GLH": "GLU", "LYN": "LYS"}[variant]
    for name in (variant, parent):
        (template,) = chain_templates(("ACE", name, "NME"))[1:2]
        lines = [
            f"ATOM  {i:5d}  {atom:<4s}{parent} A   1    {i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
            f"          {element:>2s}"
            for i, (atom, element) in enumerate(
                zip(template.atom_names, template.elements, strict=True), 1
            )
        ]
        path = tmp_path / "residue.pdb"
        path.write_text("\n".join(lines) + "\nEND\n")
        (residue,) = read_residues(path)
        assert residue.name == name
        assert set(residue.positions_nm) == set(template.atom_names)


def test_alternate_locations_are_named_and_the_first_is_read(
    alanine: Molecule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = write_pdb(tmp_path / "whole.pdb", alanine).read_text().splitlines()
    (beta,) = (i for i, line in enumerate(lines) if line[12:16] == " CB ")
    line = lines[beta]
    other = f"{line[:16]}B{line[17:30]}{99.0:8.3f}{line[38:]}"
    lines[beta : beta + 1] = [f"{line[:16]}A{line[17:]}", other]
    path = tmp_path / "alternate.pdb"
    path.write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING):
        residues = read_residues(path)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == f"PDB file {path}: alternate locations of ALA 2; the first is read"
    expected = alanine.positions_nm[alanine.atom_names.index("CB")]
    np.testing.assert_allclose(residues[1].positions_nm["CB"], expected, atol=1e-4)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_residues(tmp_path / "whole.pdb")
    assert not caplog.records


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
    packed = tmp_path / "whole.pdb.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=r"gunzip .*whole\.pdb\.gz"):
        Molecule.from_pdb(packed)
    with pytest.raises(InputError, match=r"absent\.pdb: expected a readable PDB file, got nothing"):
        Molecule.from_pdb(tmp_path / "absent.pdb")


def test_a_gap_in_the_chain_is_refused(tmp_path: Path) -> None:
    molecule = build("ACE-ALA-GLY-SER-NME")
    lines = write_pdb(tmp_path / "whole.pdb", molecule).read_text().splitlines()
    gap = tmp_path / "gap.pdb"
    gap.write_text("\n".join(line for line in lines if line[17:20] != "GLY") + "\n")
    with pytest.raises(InputError, match=r"without gaps, got 0\.\d+ nm from C of ALA 2 to"):
        Molecule.from_pdb(gap)


def test_cysteines_without_hydrogen_and_bond_are_refused(tmp_path: Path) -> None:
    molecule = build("ACE-CYS-ALA-CYS-NME")
    first, second = (i for i, name in enumerate(molecule.atom_names) if name == "SG")
    distance_nm = np.linalg.norm(molecule.positions_nm[first] - molecule.positions_nm[second])
    lines = write_pdb(tmp_path / "whole.pdb", molecule).read_text().splitlines()
    torn = tmp_path / "torn.pdb"
    torn.write_text("\n".join(line for line in lines if line[12:16] != " HG ") + "\n")
    expected = f"got none, and {distance_nm:.2f} nm from SG of CYS 2 to SG of CYS 4; add HG"
    with pytest.raises(InputError, match=re.escape(expected)):
        Molecule.from_pdb(torn)
