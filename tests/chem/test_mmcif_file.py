"""Peptides from mmCIF files: what a PDB file gives, and one line for whatever is wrong."""

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.pdb_file import read_residues
from bnce_dist.core.errors import InputError

build = cache(Molecule.from_sequence)

# As the Protein Data Bank writes atoms: numbers of the authors beside those of the polymer.
COLUMNS = """
group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id
label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id
auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num
"""
PDB_NAMES = {"HH31": "H1", "HH32": "H2", "HH33": "H3"}


def atom_rows(molecule: Molecule, *, first_number: int = 41, model: int = 1) -> list[str]:
    rows = []
    for i, (name, element, residue) in enumerate(
        zip(molecule.atom_names, molecule.elements, molecule.residue_index, strict=True)
    ):
        comp, named = molecule.residue_names[residue], PDB_NAMES.get(name, name)
        if comp == "NME" and name == "CH3":
            named = "C"
        x, y, z = molecule.positions_nm[i] * 10
        rows.append(
            f"ATOM {i + 1} {element} {named} . {comp} A 1 {residue + 1} ? {x:.4f} {y:.4f} {z:.4f} "
            f"1.0 0.0 {residue + first_number} {comp} A {named} {model}"
        )
    return rows


def cif(rows: list[str]) -> str:
    head = [f"_atom_site.{column}" for column in COLUMNS.split()]
    return "\n".join(["data_peptide", "#", "loop_", *head, *rows, "#"]) + "\n"


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return build("ACE-ALA-NME")


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Return how a file with some content is refused, in one line that names it."""

    def message(content: str | bytes) -> str:
        path = tmp_path / "given.cif"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as raised:
            Molecule.from_pdb(path)
        line = str(raised.value)
        assert "\n" not in line
        assert f"mmCIF file {path}" in line
        return line

    return message


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "ACE-ALA-NH2", "HN", "DTH-DIL", "CYX-CYX"])
def test_a_file_of_openmm_is_read_back(sequence: str, tmp_path: Path) -> None:
    molecule = build(sequence)
    path = tmp_path / "peptide.cif"
    with path.open("w") as stream:
        app.PDBxFile.writeFile(molecule.topology, molecule.positions_nm * 10, stream, keepIds=True)
    read = Molecule.from_pdb(path)
    assert read.identity == molecule.identity
    np.testing.assert_allclose(read.positions_nm, molecule.positions_nm, atol=2e-3)


@pytest.mark.parametrize("name", ["archive.cif", "ARCHIVE.CIF", "archive.mmcif"])
def test_a_file_of_the_archive_has_its_authors_numbers(
    name: str, alanine: Molecule, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(cif(atom_rows(alanine)))
    assert [residue.label for residue in read_residues(path)] == ["ACE 41", "ALA 42", "NME 43"]
    assert Molecule.from_pdb(path).identity == alanine.identity


def test_the_first_model_is_read(alanine: Molecule, tmp_path: Path) -> None:
    path = tmp_path / "models.cif"
    path.write_text(cif(atom_rows(alanine) + atom_rows(alanine, model=2)))
    residues = read_residues(path)
    assert sum(len(residue.positions_nm) for residue in residues) == alanine.num_atoms


def test_alternate_locations_are_named_and_the_first_is_read(
    alanine: Molecule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = atom_rows(alanine)
    beta = alanine.atom_names.index("CB")
    fields = rows[beta].split()
    first, second = ([*fields[:4], label, *fields[5:]] for label in "AB")
    second[10] = "99.0"
    rows[beta : beta + 1] = [" ".join(first), " ".join(second)]
    path = tmp_path / "alternate.cif"
    path.write_text(cif(rows))
    with caplog.at_level(logging.WARNING):
        residues = read_residues(path)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == f"mmCIF file {path}: alternate locations of ALA 42; the first is read"
    expected = alanine.positions_nm[beta]
    np.testing.assert_allclose(residues[1].positions_nm["CB"], expected, atol=1e-4)


def test_a_second_chain_is_refused(alanine: Molecule, refuse: Callable[[str], str]) -> None:
    water = "HETATM 23 O O . HOH B 2 . ? 9.0 9.0 9.0 1.0 0.0 101 HOH B O 1"
    line = refuse(cif([*atom_rows(alanine), water]))
    assert "expected one chain, got 2 chains; keep one peptide and remove water" in line


def test_atoms_that_are_missing_or_surplus_are_named(
    alanine: Molecule, refuse: Callable[[str], str]
) -> None:
    rows = atom_rows(alanine)
    beta = alanine.atom_names.index("CB")
    assert "got ALA 42 misses CB" in refuse(cif(rows[:beta] + rows[beta + 1 :]))
    assert "ALA 42 has unknown XB" in refuse(cif([row.replace(" CB ", " XB ") for row in rows]))


def test_what_is_no_number_is_refused(alanine: Molecule, refuse: Callable[[str], str]) -> None:
    rows = atom_rows(alanine)
    fields = rows[8].split()
    for value, got in (("nan", "ALA 42 has NaN at CA"), ("?", "ValueError"), ("1.2.3", "ValueErr")):
        changed = [*fields[:10], value, *fields[11:]]
        assert got in refuse(cif([*rows[:8], " ".join(changed), *rows[9:]]))


@pytest.mark.parametrize(
    "content",
    [
        *("", "not a structure\n", "data_x\n_cell.length_a 3\n", "loop_\n_atom_site.id\n1\n"),
        bytes(range(256)),
    ],
)
def test_something_else_is_refused(content: str | bytes, refuse: Callable[..., str]) -> None:
    assert "expected a readable mmCIF file" in refuse(content)


def test_a_file_that_is_cut_short_anywhere_is_refused(
    alanine: Molecule, refuse: Callable[[str], str]
) -> None:
    text = cif(atom_rows(alanine)).removesuffix("#\n").rstrip()
    model = len(" 1")
    for length in range(0, len(text) - model, 41):
        refuse(text[:length])


def test_a_path_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.cif: expected a readable mmCIF file, got noth"):
        Molecule.from_pdb(tmp_path / "absent.cif")
    (tmp_path / "folder.cif").mkdir()
    with pytest.raises(InputError, match=r"folder\.cif: expected a readable mmCIF file"):
        Molecule.from_pdb(tmp_path / "folder.cif")
