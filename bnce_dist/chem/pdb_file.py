"""Reading one peptide chain, with all its atoms, from a PDB or mmCIF file."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import app
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from bnce_dist.chem.templates import C_CAP, N_CAP, Template
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path

logger = logging.getLogger(__name__)

# OpenMM's reader gives atoms their PDB names; the force field's templates keep Amber's.
_METHYL = {"H1": "HH31", "H2": "HH32", "H3": "HH33"}
_AMBER_NAMES = {N_CAP: _METHYL, C_CAP: {"C": "CH3", **_METHYL}}
# A bond has 0.133 nm; files of crude models have longer ones.
_LONGEST_PEPTIDE_BOND_NM = 0.2
_LONGEST_DISULFIDE_NM = 0.25
"""It has 0.204 nm; sulphurs that are not bonded keep 0.35 nm apart."""
# What says which residue an atom of an mmCIF file is of.
_RESIDUE = ("comp_id", "seq_id")
# What the hydrogens that are there, among these, make of a residue.
_BY_HYDROGENS: dict[str, dict[frozenset[str], str]] = {
    "HIS": {
        frozenset({"HD1"}): "HID",
        frozenset({"HE2"}): "HIE",
        frozenset({"HD1", "HE2"}): "HIP",
        frozenset(): "HIE",
    },
    "ASP": {frozenset({"HD2"}): "ASH"},
    "GLU": {frozenset({"HE2"}): "GLH"},
    "LYS": {frozenset({"HZ2", "HZ3"}): "LYN"},
    "CYS": {frozenset(): "CYX"},
}
_TELLING = {
    "HIS": {"HD1", "HE2"}, "ASP": {"HD2"}, "GLU": {"HE2"}, "LYS": {"HZ1", "HZ2", "HZ3"},
    "CYS": {"HG"},
}  # fmt: skip


@dataclass(frozen=True)
class PDBResidue:
    """A residue as found in a file.

    Args:
        name: Residue name; what hydrogens tell apart (HID and HIE, ASP and ASH) has Amber's.
        label: What to call it in a message, e.g. ``"ALA 2"``.
        positions_nm: Position of each atom, by the name the force field gives it.
    """

    name: str
    label: str
    positions_nm: dict[str, NDArray[np.float64]]


def read_residues(path: str | Path) -> list[PDBResidue]:
    """Read the residues of the first model of a PDB file, or of an mmCIF file (``.cif``).

    Raises: InputError: the file cannot be read, or holds more than one chain.
    """
    path = local_path(path)
    if path.suffix.lower() == ".gz":
        raise InputError(
            f"file {path}", expected="a PDB or mmCIF file", got="a compressed one",
            remedy=f"unpack it: gunzip {path}",
        )  # fmt: skip
    try:
        pdb = (app.PDBxFile if _is_mmcif(path) else app.PDBFile)(str(path))
        positions = pdb.getPositions(asNumpy=True)._value
        alternates = (_alternates_of_mmcif if _is_mmcif(path) else _alternates_of_pdb)(path)
    except FileNotFoundError as error:
        raise _unreadable(path, "nothing") from error
    except Exception as error:  # The reader raises whatever its parser meets.
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    num_chains = pdb.topology.getNumChains()
    if num_chains != 1:
        raise InputError(
            file_label(path), expected="one chain", got=f"{num_chains} chains",
            remedy="keep one peptide and remove water, ions and ligands",
        )  # fmt: skip
    if alternates:
        logger.warning(
            "%s: alternate locations of %s; the first is read",
            file_label(path), ", ".join(alternates),
        )  # fmt: skip
    return [_read_residue(residue, positions) for residue in pdb.topology.residues()]


def file_label(path: str | Path) -> str:
    """Return what to call a structure file in a message."""
    return f"{'mmCIF' if _is_mmcif(path) else 'PDB'} file {path}"


def match_atoms(
    residues: Sequence[PDBResidue], templates: Sequence[Template], path: str | Path
) -> NDArray[np.float64]:
    """Return the positions in the order of the templates, ``(atoms, 3)`` [nm].

    Args:
        residues: As found in the file.
        templates: Of the same residues.
        path: Of the file.

    Raises: InputError: a residue misses atoms of its template or has others, or a position
        is not a number.
    """
    problems = [
        problem
        for residue, template in zip(residues, templates, strict=True)
        for problem in _differences(residue, template)
    ]
    if problems:
        raise InputError(
            file_label(path), expected="every atom of every residue, hydrogens included",
            got="; ".join(problems), remedy="complete the structure, e.g. with PDBFixer",
        )  # fmt: skip
    return np.array(
        [
            residue.positions_nm[name]
            for residue, template in zip(residues, templates, strict=True)
            for name in template.atom_names
        ]
    )


def require_peptide_bonds(residues: Sequence[PDBResidue], path: str | Path) -> None:
    """Refuse residues that follow each other without a bond: one between them is missing.

    Args:
        residues: Complete ones.
        path: Of the file.

    Raises: InputError: they are too far apart.
    """
    for one, following in pairwise(residues):
        distance = np.linalg.norm(one.positions_nm["C"] - following.positions_nm["N"])
        if distance > _LONGEST_PEPTIDE_BOND_NM:
            raise InputError(
                file_label(path),
                expected="a chain without gaps",
                got=f"{distance:.2f} nm from C of {one.label} to N of {following.label}",
                remedy="add what is missing between them, or keep one of the parts",
            )


def require_disulfide(residues: Sequence[PDBResidue], path: str | Path) -> None:
    """Refuse cysteines without HG whose sulphurs are not bonded: their hydrogens are missing.

    Args:
        residues: Complete ones.
        path: Of the file.

    Raises: InputError: they are too far apart.
    """
    cysteines = [residue for residue in residues if residue.name == "CYX"]
    for one, other in pairwise(cysteines):
        distance = np.linalg.norm(one.positions_nm["SG"] - other.positions_nm["SG"])
        if distance > _LONGEST_DISULFIDE_NM:
            raise InputError(
                file_label(path),
                expected="HG on every cysteine that is not in a disulfide",
                got=f"none, and {distance:.2f} nm from SG of {one.label} to SG of {other.label}",
                remedy="add HG to both and name them CYS",
            )


def _is_mmcif(path: str | Path) -> bool:
    return Path(path).suffix.lower() in (".cif", ".mmcif")


def _alternates_of_pdb(path: Path) -> dict[str, None]:
    """Return the residues with alternate locations, of which the reader takes the first."""
    lines = path.read_text(errors="replace").splitlines()
    atoms = (line for line in lines if line.startswith(("ATOM", "HETATM")))
    return dict.fromkeys(f"{a[17:20].strip()} {a[22:26].strip()}" for a in atoms if a[16:17] > " ")


def _alternates_of_mmcif(path: Path) -> dict[str, None]:
    """Return the same of an mmCIF file."""
    blocks: list[Any] = []
    with path.open() as stream:
        PdbxReader(stream).read(blocks)
    atoms = blocks[0].getObj("atom_site")
    rows = [dict(zip(atoms.getAttributeList(), row, strict=True)) for row in atoms.getRowList()]
    return dict.fromkeys(
        " ".join(str(row.get(f"auth_{what}", row.get(f"label_{what}"))) for what in _RESIDUE)
        for row in rows
        if row.get("label_alt_id", ".") not in (".", "?")
    )


def _read_residue(residue: app.topology.Residue, positions: NDArray[np.float64]) -> PDBResidue:
    names = _AMBER_NAMES.get(residue.name, {})
    atoms = {names.get(atom.name, atom.name): positions[atom.index] for atom in residue.atoms()}
    hydrogens = frozenset(atoms) & _TELLING.get(residue.name, set())
    name = _BY_HYDROGENS.get(residue.name, {}).get(hydrogens, residue.name)
    # An ammonium group's first hydrogen is read as the amide's.
    if "H" in atoms and "H2" in atoms:
        atoms["H1"] = atoms.pop("H")
    return PDBResidue(name, f"{residue.name} {residue.id}", atoms)


def _differences(residue: PDBResidue, template: Template) -> Iterator[str]:
    wanted = dict.fromkeys(template.atom_names)
    missing = [name for name in wanted if name not in residue.positions_nm]
    surplus = [name for name in residue.positions_nm if name not in wanted]
    bad = [name for name, xyz in residue.positions_nm.items() if not all(map(math.isfinite, xyz))]
    for verb, names in (("misses", missing), ("has unknown", surplus), ("has NaN at", bad)):
        if names:
            yield f"{residue.label} {verb} {', '.join(names)}"


def _unreadable(path: str | Path, got: str) -> InputError:
    return InputError(
        file_label(path),
        expected=f"a readable {'mmCIF' if _is_mmcif(path) else 'PDB'} file",
        got=got, remedy="check the path",
    )  # fmt: skip
