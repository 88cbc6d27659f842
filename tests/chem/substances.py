"""Small alkanes with one set of parameters."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

T = TypeVar("T")
Types = tuple[str, ...]
KCAL = 4.184
MASS = {"C": 12.011, "H": 1.008, "O": 15.999}
# By type of atom: [e], and half of Rmin [angstrom] and depth [kcal/mol] of the well.
CHARGE = {"CT3": -0.27, "CT2": -0.18, "HA": 0.09, "OW": -0.834, "HW": 0.417}
LENNARD_JONES = {
    "CT3": (2.05, 0.078), "CT2": (2.01, 0.056), "HA": (1.34, 0.024),
    "OW": (1.7682, 0.1521), "HW": (0.2245, 0.046),
}  # fmt: skip
COULOMB_14, LENNARD_JONES_14 = 1 / 1.2, 1 / 2.0
# k (r - r0)^2 and k (theta - theta0)^2: [kcal/mol/angstrom^2], [angstrom]; [kcal/mol], [degree].
BONDS: dict[Types, tuple[float, float]] = {
    ("CT2", "CT2"): (222.5, 1.53), ("CT2", "CT3"): (228.0, 1.528),
    ("CT2", "HA"): (309.0, 1.111), ("CT3", "HA"): (322.0, 1.109), ("OW", "HW"): (450.0, 0.9572),
}  # fmt: skip
ANGLES: dict[Types, tuple[float, float]] = {
    ("CT2", "CT2", "CT3"): (58.0, 115.0), ("CT2", "CT2", "HA"): (26.5, 110.1),
    ("CT3", "CT2", "CT3"): (53.35, 114.0), ("CT3", "CT2", "HA"): (34.6, 110.5),
    ("CT2", "CT3", "HA"): (34.5, 110.0), ("HA", "CT2", "HA"): (35.5, 109.0),
    ("HA", "CT3", "HA"): (35.25, 108.4), ("HW", "OW", "HW"): (55.0, 104.52),
}  # fmt: skip
# k (1 + cos(n phi - phase)): [kcal/mol], n, [degree].
TORSIONS: dict[Types, tuple[tuple[float, int, float], ...]] = {
    ("CT3", "CT2", "CT2", "CT3"): ((0.35, 1, 0.0), (0.1, 2, 180.0), (0.15, 3, 0.0)),
    ("CT3", "CT2", "CT2", "HA"): ((0.19, 3, 0.0),), ("HA", "CT2", "CT2", "HA"): ((0.22, 3, 0.0),),
    ("CT2", "CT2", "CT3", "HA"): ((0.16, 3, 0.0),), ("HA", "CT2", "CT3", "HA"): ((0.155, 3, 0.0),),
    ("CT3", "CT2", "CT3", "HA"): ((0.165, 3, 0.0),),
}  # fmt: skip
# Of implicit solvents, by element [angstrom], [1].
BORN_RADIUS = {"C": 1.7, "H": 1.2, "O": 1.5}
BORN_SCALE = {"C": 0.72, "H": 0.85, "O": 0.85}


@dataclass(frozen=True)
class Substance:
    """Atoms, bonds and a structure.

    Args:
        residues: Name and number of atoms of each residue.
        names: Of the atoms.
        types: Of the atoms; they begin with the element.
        bonds: Pairs of atoms.
        positions_nm: ``(atoms, 3)`` [nm].
    """

    residues: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    positions_nm: NDArray[np.float64]

    @property
    def elements(self) -> list[str]:
        return [kind[0] for kind in self.types]

    @property
    def residue_of(self) -> list[tuple[int, str]]:
        """Number, from 1, and name of each atom's residue."""
        residues = enumerate(self.residues, 1)
        return [(number, name) for number, (name, size) in residues for _ in range(size)]

    @property
    def angles(self) -> list[tuple[int, int, int]]:
        near = self._near()
        return [(i, c, k) for c in near for i, k in itertools.combinations(sorted(near[c]), 2)]

    @property
    def torsions(self) -> list[tuple[int, int, int, int]]:
        near = self._near()
        return [
            (i, j, k, end)
            for j, k in self.bonds
            for i in sorted(near[j] - {k})
            for end in sorted(near[k] - {j})
        ]

    @property
    def pairs_14(self) -> list[tuple[int, int]]:
        """The ends of torsions; no two torsions share theirs without rings."""
        return [(min(i, end), max(i, end)) for i, _, _, end in self.torsions]

    @property
    def excluded(self) -> list[tuple[int, int]]:
        """Bonded atoms and those of one angle."""
        return [*((min(b), max(b)) for b in self.bonds), *((i, k) for i, _, k in self.angles)]

    def lookup(self, table: Mapping[Types, T], atoms: Sequence[int]) -> T:
        """Return the parameters of bonded atoms, whose types may be read from either end."""
        return table[self.key(table, atoms)]

    def key(self, table: Mapping[Types, T], atoms: Sequence[int]) -> Types:
        types = tuple(self.types[atom] for atom in atoms)
        return types if types in table else types[::-1]

    def sorted_as(self, order: Sequence[int]) -> "Substance":
        """Return the same with its atoms in another order."""
        place = {old: new for new, old in enumerate(order)}
        return replace(
            self,
            names=tuple(self.names[old] for old in order),
            types=tuple(self.types[old] for old in order),
            bonds=tuple((place[i], place[j]) for i, j in self.bonds),
            positions_nm=self.positions_nm[list(order)],
        )

    def topology(self) -> app.Topology:
        """Return the atoms and bonds as OpenMM has them."""
        topology = app.Topology()
        chain = topology.addChain()
        residues = [topology.addResidue(name, chain) for name, _ in self.residues]
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(element), residues[number - 1])
            for name, element, (number, _) in zip(
                self.names, self.elements, self.residue_of, strict=True
            )
        ]
        for i, j in self.bonds:
            topology.addBond(atoms[i], atoms[j])
        return topology

    def _near(self) -> dict[int, set[int]]:
        near: dict[int, set[int]] = {atom: set() for atom in range(len(self.names))}
        for i, j in self.bonds:
            near[i].add(j)
            near[j].add(i)
        return near


def alkane(num_carbons: int) -> Substance:
    """Return an unbranched alkane, all trans: its carbons first, then hydrogens by carbon."""
    half = math.radians(112.0) / 2
    # The zigzag goes on by one place at either end, where there is a hydrogen.
    place = np.arange(-1, num_carbons + 1)
    chain = 0.153 * np.stack([place * math.sin(half), place % 2 * math.cos(half), 0 * place], 1)
    bonds = [(c, c + 1) for c in range(num_carbons - 1)]
    positions = list(chain[1:-1])
    for carbon in range(num_carbons):
        here, outward = chain[carbon + 1], 0.0629 * (2 * (carbon % 2) - 1)
        hydrogens = [here + np.array([0.0, outward, z]) for z in (0.089, -0.089)]
        for end, beyond in ((0, chain[0]), (num_carbons - 1, chain[-1])):
            if carbon == end:
                hydrogens.append(here + (beyond - here) * 0.109 / 0.153)
        for position in hydrogens:
            bonds.append((carbon, len(positions)))
            positions.append(position)
    num_atoms = len(positions)
    num_hydrogens = num_atoms - num_carbons
    return Substance(
        residues=(("ALK", num_atoms),),
        names=(
            *(f"C{i + 1}" for i in range(num_carbons)),
            *(f"H{i + 1}" for i in range(num_hydrogens)),
        ),
        types=("CT3", *["CT2"] * (num_carbons - 2), "CT3", *["HA"] * num_hydrogens),
        bonds=tuple(bonds),
        positions_nm=np.array(positions),
    )


def with_water(substance: Substance) -> Substance:
    """Return the substance and a water molecule 1 nm away."""
    first = len(substance.names)
    water = np.array([[0.0, 0.0, 1.0], [0.09572, 0.0, 1.0], [-0.02399, 0.09267, 1.0]])
    return Substance(
        residues=(*substance.residues, ("SOL", 3)),
        names=(*substance.names, "O", "HX", "HY"),
        types=(*substance.types, "OW", "HW", "HW"),
        bonds=(*substance.bonds, (first, first + 1), (first, first + 2)),
        positions_nm=np.concatenate([substance.positions_nm, water]),
    )


def system_of(substance: Substance) -> openmm.System:
    """Return the parameters as an OpenMM System."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions, nonbonded = openmm.PeriodicTorsionForce(), openmm.NonbondedForce()
    for kind, element in zip(substance.types, substance.elements, strict=True):
        system.addParticle(MASS[element])
        nonbonded.addParticle(CHARGE[kind], sigma_nm(kind), LENNARD_JONES[kind][1] * KCAL)
    for bond in substance.bonds:
        stiffness, length = substance.lookup(BONDS, bond)
        bonds.addBond(*bond, length / 10, 200 * stiffness * KCAL)
    for angle in substance.angles:
        stiffness, rest = substance.lookup(ANGLES, angle)
        angles.addAngle(*angle, math.radians(rest), 2 * stiffness * KCAL)
    for torsion in substance.torsions:
        for height, order, phase in substance.lookup(TORSIONS, torsion):
            torsions.addTorsion(*torsion, order, math.radians(phase), height * KCAL)
    for i, j in substance.excluded:
        nonbonded.addException(i, j, 0.0, 1.0, 0.0)
    for i, j in substance.pairs_14:
        first, second = substance.types[i], substance.types[j]
        depth = math.sqrt(LENNARD_JONES[first][1] * LENNARD_JONES[second][1]) * KCAL
        nonbonded.addException(
            i,
            j,
            COULOMB_14 * CHARGE[first] * CHARGE[second],
            (sigma_nm(first) + sigma_nm(second)) / 2,
            LENNARD_JONES_14 * depth,
        )
    for force in (bonds, angles, torsions, nonbonded):
        system.addForce(force)
    return system


def sigma_nm(kind: str) -> float:
    """Return where the Lennard-Jones potential of a type with itself is zero [nm]."""
    return LENNARD_JONES[kind][0] / 10 * 2 ** (5 / 6)
