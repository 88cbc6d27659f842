"""Torsions by the names that people give them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnce_dist.chem.graph import is_in_ring, linear_atoms, neighbours_of, planar_atoms
from bnce_dist.chem.molecule import Molecule, Quadruple
from bnce_dist.core.errors import InputError

_NAMED = re.compile(r"(phi|psi|omega|chi[1-5])(?::(\d+))?")
_ATOM = re.compile(r"(?:(\d+):)?(.+)")
# Atoms by residue, relative to that of the name, and by name.
_BACKBONE = {
    "phi": [[(-1, "C"), (0, "N"), (0, "CA"), (0, "C")]],
    "psi": [[(0, "N"), (0, "CA"), (0, "C"), (1, "N")]],
    "omega": [
        [(0, before), (0, "C"), (1, "N"), (1, after)]
        for before in ("CA", "CH3")
        for after in ("CA", "CH3")
    ],
}


def find_torsion(molecule: Molecule, name: str) -> Quadruple:
    """Return the atoms of a torsion.

    Args:
        molecule: The molecule.
        name: ``phi``, ``psi``, ``omega`` or ``chi1`` to ``chi5``, of the first residue that has one
            or of a given residue, counted from 1 (``"chi1:2"``); or four atoms joined by dashes
            (``"C1-C2-C3-C4"``), with their residues where names repeat (``"2:N-2:CA-2:C-3:N"``).

    Raises: InputError: there is no such torsion, or the atoms are not bonded in a row.

    Examples:
        >>> find_torsion(Molecule.from_sequence("ACE-ALA-NME"), "phi")
        (4, 6, 8, 14)
        >>> find_torsion(Molecule.from_sequence("ACE-SER-NME"), "2:N-2:CA-CB-OG")
        (6, 8, 10, 13)
    """
    named = _NAMED.fullmatch(name.strip())
    if named is None:
        return _of_atoms(molecule, name)
    kind, residue = named.groups()
    residues = range(len(molecule.residue_names)) if residue is None else [int(residue) - 1]
    for index in residues:
        for atoms in _definitions(kind):
            for found in molecule.quadruples([(index + shift, atom) for shift, atom in atoms]):
                return found
    raise _absent(molecule, name, "no residue with it" if residue is None else "none there")


def find_companion(molecule: Molecule, torsion: Quadruple) -> Quadruple:
    """Return another torsion, best of a bond beside this one's, that can be biased with it.

    Raises: InputError: no other bond turns.
    """
    others = replace(molecule, torsions=(torsion, torsion)).rotatable_torsions
    beside = [other for other in others if set(other[1:3]) & set(torsion[1:3])]
    for found in (*beside, *others, *_turning(molecule, torsion)):
        return found
    raise InputError(
        f"molecule {molecule.name}", expected="two bonds that turn", got="one",
        remedy="choose a molecule with more atoms",
    )  # fmt: skip


def _turning(molecule: Molecule, torsion: Quadruple) -> Iterator[Quadruple]:
    """Yield torsions of groups that end in hydrogens, such as methyls, about other bonds."""
    near = neighbours_of(molecule.num_atoms, molecule.bonds)
    planar, linear = planar_atoms(molecule.elements, near), linear_atoms(molecule.elements, near)
    for second, third in molecule.bonds:
        before, after = set(near[second]) - {third}, set(near[third]) - {second}
        bond = {second, third}
        turns = not (bond <= planar or bond & linear or is_in_ring(molecule.bonds, (second, third)))
        if turns and before and after and bond != set(torsion[1:3]):
            yield min(before), second, third, min(after)


def _definitions(kind: str) -> Sequence[Sequence[tuple[int, str]]]:
    if kind in _BACKBONE:
        return _BACKBONE[kind]
    from mdtraj.geometry import dihedral

    names = getattr(dihedral, f"{kind.upper()}_ATOMS")
    return [[(0, atom) for atom in atoms] for atoms in names]


def _of_atoms(molecule: Molecule, name: str) -> Quadruple:
    parts = name.strip().split("-")
    if len(parts) != 4:
        raise _absent(molecule, name, f"{len(parts)} atoms")
    first, second, third, fourth = (_atom(molecule, name, part) for part in parts)
    for atom in (first, second):
        if atom in (third, fourth):
            raise _absent(molecule, name, f"{molecule.atom_names[atom]} twice")
    near = neighbours_of(molecule.num_atoms, molecule.bonds)
    for atom in {second, third} & linear_atoms(molecule.elements, near):
        raise _absent(molecule, name, f"a straight line at {molecule.atom_names[atom]}")
    bonds = {frozenset(bond) for bond in molecule.bonds}
    for pair in ((first, second), (second, third), (third, fourth)):
        if frozenset(pair) not in bonds:
            names = " and ".join(molecule.atom_names[atom] for atom in pair)
            raise _absent(molecule, name, f"{names}, which are not bonded")
    return first, second, third, fourth


def _atom(molecule: Molecule, name: str, part: str) -> int:
    match = _ATOM.fullmatch(part.strip())
    residue, atom = match.groups() if match else (None, part)
    found = [
        index
        for index, (owner, known) in enumerate(
            zip(molecule.residue_index, molecule.atom_names, strict=True)
        )
        if known == atom and residue in (None, str(owner + 1))
    ]
    if not found:
        raise InputError.unknown(
            f"atom of the torsion {name!r}", part, dict.fromkeys(molecule.atom_names)
        )
    if len(found) > 1:
        raise _absent(molecule, name, f"{len(found)} atoms named {part}; write e.g. 2:{atom}")
    return found[0]


def _absent(molecule: Molecule, name: str, got: str) -> InputError:
    return InputError(
        f"torsion {name!r} of {molecule.name}",
        expected="phi, psi, omega or chi1 to chi5 (of residue 2: chi1:2), or four bonded atoms "
        "(C1-C2-C3-C4)",
        got=got,
        remedy="choose a torsion that the molecule has",
    )
