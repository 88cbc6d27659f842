"""Alkanes as files of Amber, CHARMM, Gromacs and OpenMM.

Written from the public descriptions of the formats: "PRMTOP file format" at ambermd.org, `io.info`
and `parmfile.info` of CHARMM, the chapter on file formats of Gromacs' manual.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import openmm
from openmm import app

from tests.chem.substances import (
    ANGLES,
    BONDS,
    BORN_RADIUS,
    BORN_SCALE,
    CHARGE,
    COULOMB_14,
    KCAL,
    LENNARD_JONES,
    LENNARD_JONES_14,
    MASS,
    TORSIONS,
    Substance,
    Types,
    sigma_nm,
    system_of,
)

ATOMIC_NUMBER = {"C": 6, "H": 1, "O": 8}


class Files(NamedTuple):
    """What a molecule is read from."""

    topology: Path
    coordinates: Path
    parameters: tuple[Path, ...] = ()


def write_openmm(folder: Path, substance: Substance) -> Files:
    """Write a System as XML, and a PDB file."""
    files = Files(folder / "openmm.xml", folder / "openmm.pdb")
    files.topology.write_text(openmm.XmlSerializer.serialize(system_of(substance)))
    write_pdb(files.coordinates, substance)
    return files


def write_amber(folder: Path, substance: Substance) -> Files:
    """Write a prmtop, and an inpcrd."""
    files = Files(folder / "amber.prmtop", folder / "amber.inpcrd")
    names = list(dict.fromkeys(substance.types))
    heavy = [element != "H" for element in substance.elements]
    bonds = _amber_terms(substance, BONDS, substance.bonds, heavy)
    angles = _amber_terms(substance, ANGLES, substance.angles, heavy)
    terms = [(key, term) for key in TORSIONS for term in TORSIONS[key]]
    torsions: dict[bool, list[int]] = {True: [], False: []}
    for atoms in substance.torsions:
        key = substance.key(TORSIONS, atoms)
        # Zero can have no sign, which says that the ends were paired before.
        i, j, k, end = (3 * atom for atom in (atoms if atoms[2] else atoms[::-1]))
        for again, term in enumerate(TORSIONS[key]):
            row = [i, j, -k if again else k, end, terms.index((key, term)) + 1]
            torsions[all(heavy[atom] for atom in atoms)] += row
    pairs = sorted({*substance.excluded, *substance.pairs_14})
    excluded = [[j + 1 for i, j in pairs if i == atom] or [0] for atom in range(len(heavy))]
    table, repulsion, attraction = _amber_lennard_jones(names)
    starts = itertools.accumulate((size for _, size in substance.residues[:-1]), initial=1)
    pointers = [0] * 31
    for position, value in {
        0: len(heavy), 1: len(names), 2: len(bonds[False]) // 3, 3: len(bonds[True]) // 3,
        4: len(angles[False]) // 4, 5: len(angles[True]) // 4, 6: len(torsions[False]) // 5,
        7: len(torsions[True]) // 5, 10: sum(map(len, excluded)), 11: len(substance.residues),
        12: len(bonds[True]) // 3, 13: len(angles[True]) // 4, 14: len(torsions[True]) // 5,
        15: len(BONDS), 16: len(ANGLES), 17: len(terms), 18: len(names),
        28: max(size for _, size in substance.residues),
    }.items():  # fmt: skip
        pointers[position] = value
    kinds, elements = substance.types, substance.elements
    sections: dict[str, Sequence[object]] = {
        "TITLE": ["alkane"],
        "POINTERS": pointers,
        "ATOM_NAME": substance.names,
        "CHARGE": [18.2223 * CHARGE[kind] for kind in kinds],
        "ATOMIC_NUMBER": [ATOMIC_NUMBER[element] for element in elements],
        "MASS": [MASS[element] for element in elements],
        "ATOM_TYPE_INDEX": [names.index(kind) + 1 for kind in kinds],
        "NUMBER_EXCLUDED_ATOMS": [len(row) for row in excluded],
        "NONBONDED_PARM_INDEX": table,
        "RESIDUE_LABEL": [name for name, _ in substance.residues],
        "RESIDUE_POINTER": list(starts),
        "BOND_FORCE_CONSTANT": [k for k, _ in BONDS.values()],
        "BOND_EQUIL_VALUE": [length for _, length in BONDS.values()],
        "ANGLE_FORCE_CONSTANT": [k for k, _ in ANGLES.values()],
        "ANGLE_EQUIL_VALUE": [math.radians(rest) for _, rest in ANGLES.values()],
        "DIHEDRAL_FORCE_CONSTANT": [height for _, (height, _, _) in terms],
        "DIHEDRAL_PERIODICITY": [float(order) for _, (_, order, _) in terms],
        "DIHEDRAL_PHASE": [math.radians(phase) for _, (_, _, phase) in terms],
        "SCEE_SCALE_FACTOR": [1 / COULOMB_14] * len(terms),
        "SCNB_SCALE_FACTOR": [1 / LENNARD_JONES_14] * len(terms),
        "SOLTY": [0.0] * len(names),
        "LENNARD_JONES_ACOEF": repulsion,
        "LENNARD_JONES_BCOEF": attraction,
        "BONDS_INC_HYDROGEN": bonds[False],
        "BONDS_WITHOUT_HYDROGEN": bonds[True],
        "ANGLES_INC_HYDROGEN": angles[False],
        "ANGLES_WITHOUT_HYDROGEN": angles[True],
        "DIHEDRALS_INC_HYDROGEN": torsions[False],
        "DIHEDRALS_WITHOUT_HYDROGEN": torsions[True],
        "EXCLUDED_ATOMS_LIST": [j for row in excluded for j in row],
        "HBOND_ACOEF": [],
        "HBOND_BCOEF": [],
        "HBCUT": [],
        "AMBER_ATOM_TYPE": kinds,
        "TREE_CHAIN_CLASSIFICATION": ["BLA"] * len(kinds),
        "JOIN_ARRAY": [0] * len(kinds),
        "IROTAT": [0] * len(kinds),
        "RADIUS_SET": ["modified Bondi radii"],
        "RADII": [BORN_RADIUS[element] for element in elements],
        "SCREEN": [BORN_SCALE[element] for element in elements],
    }
    stamp = "%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/24  00:00:00\n"
    files.topology.write_text(stamp + "".join(map(_amber_section, sections, sections.values())))
    write_inpcrd(files.coordinates, substance)
    return files


def write_charmm(folder: Path, substance: Substance) -> Files:
    """Write a psf, a parameter file, and a crd."""
    files = Files(folder / "charmm.psf", folder / "charmm.crd", (folder / "charmm.prm",))
    atoms = [
        f"{i:8d} SYS  {number:<4d} {residue:4s} {name:4s} {kind:4s} {CHARGE[kind]:10.6f}"
        f"     {MASS[kind[0]]:9.4f}           0"
        for i, (name, kind, (number, residue)) in enumerate(
            zip(substance.names, substance.types, substance.residue_of, strict=True), 1
        )
    ]
    psf = ["PSF", "", "       1 !NTITLE", "* ALKANE", "", f"{len(atoms):8d} !NATOM", *atoms, ""]
    for title, rows, per_line in (
        ("NBOND: bonds", substance.bonds, 8),
        ("NTHETA: angles", substance.angles, 9),
        ("NPHI: dihedrals", substance.torsions, 8),
        ("NIMPHI: impropers", (), 8),
        ("NDON: donors", (), 8),
        ("NACC: acceptors", (), 8),
        ("NNB", (), 8),
    ):
        numbers = [f"{atom + 1:8d}" for row in rows for atom in row]
        psf += [f"{len(rows):8d} !{title}", *(_lines(numbers, per_line) or [""]), ""]
    psf += ["       1       0 !NGRP NST2", "       0       0       0", ""]
    files.topology.write_text("\n".join(psf) + "\n")
    prm = ["* Alkanes", "*", "", "ATOMS"]
    prm += [f"MASS {n} {kind} {MASS[kind[0]]}" for n, kind in enumerate(CHARGE, 1)]
    prm += ["", "BONDS", *(f"{' '.join(key)} {k} {r}" for key, (k, r) in BONDS.items())]
    prm += ["", "ANGLES", *(f"{' '.join(key)} {k} {t}" for key, (k, t) in ANGLES.items())]
    prm += ["", "DIHEDRALS"]
    prm += [f"{' '.join(key)} {k} {n} {p}" for key in TORSIONS for k, n, p in TORSIONS[key]]
    prm += ["", "IMPROPER", ""]
    prm += [f"NONBONDED nbxmod 5 atom cdiel eps 1.0 e14fac {COULOMB_14:.12f} wmin 1.5"]
    prm += [
        f"{kind} 0.0 {-depth} {radius} 0.0 {-depth * LENNARD_JONES_14} {radius}"
        for kind, (radius, depth) in LENNARD_JONES.items()
    ]
    files.parameters[0].write_text("\n".join([*prm, "", "END"]) + "\n")
    write_crd(files.coordinates, substance)
    return files


def write_gromacs(folder: Path, substance: Substance) -> Files:
    """Write a top, and a gro."""
    files = Files(folder / "gromacs.top", folder / "gromacs.gro")
    top = ["; alkanes", "[ defaults ]", f"1 2 yes {LENNARD_JONES_14} {COULOMB_14:.12f}"]
    top += ["[ atomtypes ]"]
    top += [
        f"{kind} {ATOMIC_NUMBER[kind[0]]} {MASS[kind[0]]} {CHARGE[kind]} A "
        f"{sigma_nm(kind):.12f} {LENNARD_JONES[kind][1] * KCAL:.12f}"
        for kind in CHARGE
    ]
    top += ["[ moleculetype ]", "alkane 3", "[ atoms ]"]
    top += [
        f"{i} {kind} {number} {residue} {name} {i} {CHARGE[kind]} {MASS[kind[0]]}"
        for i, (name, kind, (number, residue)) in enumerate(
            zip(substance.names, substance.types, substance.residue_of, strict=True), 1
        )
    ]
    top += ["[ bonds ]"]
    for bond in substance.bonds:
        k, length = substance.lookup(BONDS, bond)
        top.append(f"{_from_1(bond)} 1 {length / 10:.12f} {200 * k * KCAL:.12f}")
    top += ["[ pairs ]", *(f"{_from_1(pair)} 1" for pair in substance.pairs_14), "[ angles ]"]
    for angle in substance.angles:
        k, rest = substance.lookup(ANGLES, angle)
        top.append(f"{_from_1(angle)} 1 {rest} {2 * k * KCAL:.12f}")
    top += ["[ dihedrals ]"]
    for torsion in substance.torsions:
        for height, order, phase in substance.lookup(TORSIONS, torsion):
            top.append(f"{_from_1(torsion)} 9 {phase} {height * KCAL:.12f} {order}")
    top += ["[ system ]", "one alkane", "[ molecules ]", "alkane 1"]
    files.topology.write_text("\n".join(top) + "\n")
    write_gro(files.coordinates, substance)
    return files


WRITERS: dict[str, Callable[[Path, Substance], Files]] = {
    "prmtop": write_amber, "psf": write_charmm, "top": write_gromacs, "xml": write_openmm,
}  # fmt: skip


def write_pdb(path: Path, substance: Substance) -> Path:
    """Write the structure with its bonds."""
    with path.open("w") as stream:
        app.PDBFile.writeFile(substance.topology(), substance.positions_nm * 10, stream)
    return path


def write_inpcrd(path: Path, substance: Substance) -> Path:
    """Write positions for Amber."""
    numbers = [f"{x:12.7f}" for x in substance.positions_nm.ravel() * 10]
    rows = ["alkane", f"{len(substance.names):5d}", *_lines(numbers, 6)]
    path.write_text("\n".join(rows) + "\n")
    return path


def write_crd(path: Path, substance: Substance) -> Path:
    """Write positions for CHARMM."""
    rows = [
        f"{i:5d}{number:5d} {residue:<4s} {name:<4s}{x:10.5f}{y:10.5f}{z:10.5f} SYS  "
        f"{number:<4d}{0:10.5f}"
        for i, (name, (number, residue), (x, y, z)) in enumerate(
            zip(substance.names, substance.residue_of, substance.positions_nm * 10, strict=True), 1
        )
    ]
    path.write_text("\n".join(["* ALKANE", "*", f"{len(rows):5d}", *rows]) + "\n")
    return path


def write_gro(path: Path, substance: Substance) -> Path:
    """Write positions for Gromacs."""
    rows = [
        f"{number:5d}{residue:<5s}{name:>5s}{i:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
        for i, (name, (number, residue), (x, y, z)) in enumerate(
            zip(substance.names, substance.residue_of, substance.positions_nm, strict=True), 1
        )
    ]
    box = f"{5:10.5f}{5:10.5f}{5:10.5f}"
    path.write_text("\n".join(["alkane", f"{len(rows):5d}", *rows, box]) + "\n")
    return path


def _from_1(atoms: Iterable[int]) -> str:
    return " ".join(str(atom + 1) for atom in atoms)


def _lines(fields: Sequence[str], per_line: int) -> list[str]:
    starts = range(0, len(fields), per_line)
    return ["".join(fields[start : start + per_line]) for start in starts]


def _amber_terms(
    substance: Substance,
    table: Mapping[Types, object],
    rows: Sequence[Sequence[int]],
    heavy: Sequence[bool],
) -> dict[bool, list[int]]:
    """Return atoms, times three, and number of parameters of terms without and with hydrogen."""
    keys = list(table)
    found: dict[bool, list[int]] = {True: [], False: []}
    for atoms in rows:
        number = keys.index(substance.key(table, atoms)) + 1
        found[all(heavy[atom] for atom in atoms)] += [*(3 * atom for atom in atoms), number]
    return found


def _amber_lennard_jones(kinds: Sequence[str]) -> tuple[list[int], list[float], list[float]]:
    """Return which pair of types has which coefficients of r^-12 and r^-6, and these."""
    table = [0] * len(kinds) ** 2
    repulsion, attraction = [], []
    for i, first in enumerate(kinds):
        for j, second in enumerate(kinds[: i + 1]):
            closest = LENNARD_JONES[first][0] + LENNARD_JONES[second][0]
            depth = math.sqrt(LENNARD_JONES[first][1] * LENNARD_JONES[second][1])
            repulsion.append(depth * closest**12)
            attraction.append(2 * depth * closest**6)
            table[i * len(kinds) + j] = table[j * len(kinds) + i] = len(repulsion)
    return table, repulsion, attraction


def _amber_section(flag: str, values: Sequence[object]) -> str:
    if flag in ("TITLE", "RADIUS_SET"):
        form, lines = "1a80", [str(values[0])]
    elif values and isinstance(values[0], str):
        form, lines = "20a4", _lines([f"{value:<4s}" for value in values], 20)
    elif values and isinstance(values[0], float):
        form, lines = "5E16.8", _lines([f"{value:16.8E}" for value in values], 5)
    else:
        form, lines = "10I8", _lines([f"{value:8d}" for value in values], 10)
    return "\n".join([f"%FLAG {flag}", f"%FORMAT({form})", *(lines or [""])]) + "\n"
