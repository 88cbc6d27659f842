"""Order parameters by the names that people give them: torsions, distances and angles."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bnce_dist.chem.geometry import bend, dihedral, distance
from bnce_dist.chem.graph import is_in_ring, linear_atoms, neighbours_of, planar_atoms
from bnce_dist.chem.molecule import Molecule, Quadruple
from bnce_dist.core.errors import InputError

_NAMED = re.compile(r"(phi|psi|omega|chi[1-5])(?::(\d+))?")
_CALLED = re.compile(r"(distance|angle)\(([^()]*)\)")
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


@dataclass(frozen=True)
class OrderParameter:
    """A distance of two atoms, an angle of three, or a torsion of four.

    Args:
        name: As it was asked for.
        atoms: Their indices.
    """

    name: str
    atoms: tuple[int, ...]

    @property
    def is_periodic(self) -> bool:
        """Whether pi and -pi are the same: of torsions."""
        return len(self.atoms) == 4

    @property
    def unit(self) -> str:
        """``nm`` or ``rad``."""
        return "nm" if len(self.atoms) == 2 else "rad"

    @property
    def limits(self) -> tuple[float, float]:
        """What it cannot leave [nm or rad]."""
        return {2: (0.0, math.inf), 3: (0.0, math.pi), 4: (-math.pi, math.pi)}[len(self.atoms)]

    def values(self, positions_nm: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return it of conformations, ``(samples,)`` [nm or rad].

        Args:
            positions_nm: ``(samples, atoms, 3)`` [nm].
        """
        measure = {2: distance, 3: bend, 4: dihedral}[len(self.atoms)]
        return measure(torch.from_numpy(positions_nm), self.atoms).numpy()


def find_order_parameter(molecule: Molecule, name: str) -> OrderParameter:
    """Return an order parameter by its name.

    Args:
        molecule: The molecule.
        name: ``distance(2:N,2:O)`` or ``angle(N,CA,C)`` with any atoms, with their residues where
            names repeat; or a torsion, as `find_torsion` takes it.

    Raises: InputError: there is none of that name.

    Examples:
        >>> find_order_parameter(Molecule.from_sequence("ACE-ALA-NME"), "distance(1:O,3:N)").atoms
        (5, 16)
    """
    called = _CALLED.fullmatch(name.strip())
    if called is None:
        if "-" not in name and _NAMED.fullmatch(name.strip()) is None:
            known = [*_named_torsions(molecule), "C1-C2-C3-C4", "distance(A,B)", "angle(A,B,C)"]
            raise InputError.unknown(f"order parameter of {molecule.name}", name, known)
        return OrderParameter(name, find_torsion(molecule, name))
    kind, arguments = called.groups()
    atoms = tuple(_atom(molecule, part, f"atom of {name}") for part in arguments.split(","))
    wanted = {"distance": 2, "angle": 3}[kind]
    if len(atoms) != wanted or len(set(atoms)) != wanted:
        raise InputError(
            f"{name} of {molecule.name}",
            expected=f"{wanted} different atoms",
            got=", ".join(molecule.atom_names[atom] for atom in atoms),
            remedy="write distance(A,B) or angle(A,B,C)",
        )
    return OrderParameter(name, atoms)


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
            for found in molecule.chains_of_four([(index + shift, atom) for shift, atom in atoms]):
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


def require_turning(molecule: Molecule) -> None:
    """Refuse a biased torsion about a bond between planar atoms, such as a peptide bond.

    Internal coordinates take it as stiff, and umbrellas turn it all the same.

    Args:
        molecule: With the two torsions that are biased.

    Raises: InputError: one of them is such a torsion.
    """
    planar = planar_atoms(molecule.elements, neighbours_of(molecule.num_atoms, molecule.bonds))
    for torsion in (molecule.phi, molecule.psi):
        if planar.issuperset(torsion[1:3]):
            raise InputError(
                "target.torsions",
                expected="torsions that models let turn, about bonds with an atom that is not "
                "planar",
                got="-".join(molecule.atom_names[atom] for atom in torsion),
                remedy="name another one, or let the run end with its umbrellas (--stage simulate)",
            )


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


def _named_torsions(molecule: Molecule) -> list[str]:
    """Return the names of torsions that some residue has."""
    return [
        kind
        for kind in (*_BACKBONE, *(f"chi{number}" for number in range(1, 6)))
        if any(
            list(molecule.chains_of_four([(index + shift, atom) for shift, atom in atoms]))
            for index in range(len(molecule.residue_names))
            for atoms in _definitions(kind)
        )
    ]


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
    what = f"atom of the torsion {name!r}"
    first, second, third, fourth = (_atom(molecule, part, what) for part in parts)
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


def _atom(molecule: Molecule, part: str, what: str) -> int:
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
        raise InputError.unknown(what, part, dict.fromkeys(molecule.atom_names))
    if len(found) > 1:
        raise InputError(
            what,
            expected="one atom",
            got=f"{len(found)} atoms named {part}",
            remedy=f"write e.g. 2:{atom}",
        )
    return found[0]


def _absent(molecule: Molecule, name: str, got: str) -> InputError:
    return InputError(
        f"torsion {name!r} of {molecule.name}",
        expected="phi, psi, omega or chi1 to chi5 (of residue 2: chi1:2), or four bonded atoms "
        "(C1-C2-C3-C4)",
        got=got,
        remedy="choose a torsion that the molecule has",
    )
