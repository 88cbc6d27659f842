"""Molecules with a force field of their own: springs that hold a structure as it is."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from tests.chem.molecule_files import Files
from tests.chem.substances import alkane

MASS = {"C": 12.011, "H": 1.008, "N": 14.007}


@dataclass(frozen=True)
class Springs:
    """Atoms, bonds and the structure in which no spring is stretched.

    Args:
        names: Of the atoms; they begin with the element.
        bonds: Pairs of atoms.
        positions_nm: ``(atoms, 3)`` [nm].
    """

    names: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    positions_nm: NDArray[np.float64]

    @property
    def elements(self) -> list[str]:
        return [name[0] for name in self.names]

    def topology(self) -> app.Topology:
        """Return the atoms and bonds as OpenMM has them."""
        topology = app.Topology()
        residue = topology.addResidue("MOL", topology.addChain())
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(element), residue)
            for name, element in zip(self.names, self.elements, strict=True)
        ]
        for i, j in self.bonds:
            topology.addBond(atoms[i], atoms[j])
        return topology

    def system(self) -> openmm.System:
        """Return springs for all bonds and angles, stiff as those of other force fields."""
        system = openmm.System()
        bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
        near: dict[int, list[int]] = {atom: [] for atom in range(len(self.names))}
        for element in self.elements:
            system.addParticle(MASS[element])
        for i, j in self.bonds:
            bonds.addBond(i, j, float(np.linalg.norm(self._between(i, j))), 250_000.0)
            near[i].append(j)
            near[j].append(i)
        for middle, ends in near.items():
            for i, k in itertools.combinations(sorted(ends), 2):
                arms = [self._between(middle, end) for end in (i, k)]
                cosine = arms[0] @ arms[1] / np.prod(np.linalg.norm(arms, axis=1))
                angles.addAngle(i, middle, k, float(np.arccos(np.clip(cosine, -1, 1))), 400.0)
        system.addForce(bonds)
        system.addForce(angles)
        return system

    def write(self, folder: Path, name: str) -> Files:
        """Write the System as XML, and a PDB file."""
        files = Files(folder / f"{name}.xml", folder / f"{name}.pdb")
        files.topology.write_text(openmm.XmlSerializer.serialize(self.system()))
        with files.coordinates.open("w") as stream:
            app.PDBFile.writeFile(self.topology(), self.positions_nm * 10, stream)
        return files

    def _between(self, first: int, second: int) -> NDArray[np.float64]:
        return self.positions_nm[second] - self.positions_nm[first]


def with_tail(
    num_carbons: int, tail: Sequence[str], lengths_nm: Sequence[float], degrees: float = 180.0
) -> Springs:
    """Return an alkane whose last carbon has other atoms than hydrogens.

    Args:
        num_carbons: Of the alkane, all trans.
        tail: Elements after the last carbon.
        lengths_nm: Of their bonds, one after the other [nm].
        degrees: The angle of the last carbon and of all of the tail but its end.
    """
    chain = alkane(num_carbons)
    last = num_carbons - 1
    gone = {j for i, j in chain.bonds if i == last and chain.elements[j] == "H"}
    kept = [atom for atom in range(len(chain.names)) if atom not in gone]
    names = [f"{chain.elements[atom]}{number}" for number, atom in enumerate(kept, 1)]
    positions = [chain.positions_nm[atom] for atom in kept]
    place = {atom: number for number, atom in enumerate(kept)}
    bonds = [(place[i], place[j]) for i, j in chain.bonds if not {i, j} & gone]
    direction = positions[last] - positions[last - 1]
    direction = direction / np.linalg.norm(direction)
    sideways = np.cross(direction, [0.0, 0.0, 1.0])
    bend = np.radians(180.0 - degrees)
    end = last
    for element, length in zip(tail, lengths_nm, strict=True):
        direction, sideways = (
            np.cos(bend) * direction + np.sin(bend) * sideways,
            np.cos(bend) * sideways - np.sin(bend) * direction,
        )
        bonds.append((end, len(names)))
        positions.append(positions[end] + length * direction)
        end = len(names)
        names.append(f"{element}{end + 1}")
    return Springs(tuple(names), tuple(bonds), np.array(positions))
