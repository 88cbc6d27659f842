"""Molecules: what is bonded to what, which way round, and a relaxed structure."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from openmm import app

from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.graph import find_rotatable_torsions, formal_charges
from bnce_dist.chem.initial_structure import build_positions, minimise
from bnce_dist.chem.pdb_file import match_atoms, read_residues
from bnce_dist.chem.templates import Template, chain_templates, parse_sequence
from bnce_dist.core.errors import InputError

Quadruple = tuple[int, int, int, int]

# Stereocentre c of a residue (any residue: None), then substituents a, b, d with
# (a-c).((b-c)x(d-c)) > 0 in the L form: S at CA (R for CYS), S at ILE CB, R at THR CB.
_STEREOCENTRES = (
    (None, ("CA", "N", "C", "CB")),
    ("ILE", ("CB", "CA", "CG1", "CG2")),
    ("THR", ("CB", "CA", "OG1", "CG2")),
)


@dataclass(frozen=True)
class Molecule:
    """A peptide: its graph, its handedness and one relaxed structure.

    Holds plain data only, so that it pickles small and fast.

    Args:
        name: Its sequence, e.g. ``"ACE-ALA-NME"``.
        residue_names: Name of each residue.
        residue_index: Residue of each atom.
        atom_names: Name of each atom, in the force field's order.
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms.
        positions_nm: Relaxed positions, ``(atoms, 3)`` [nm].
    """

    name: str
    residue_names: tuple[str, ...]
    residue_index: tuple[int, ...]
    atom_names: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    positions_nm: NDArray[np.float64] = field(repr=False, compare=False)

    @classmethod
    def from_sequence(cls, sequence: str) -> Self:
        """Build a peptide from its sequence alone.

        Args:
            sequence: Three-letter names joined by hyphens (``"ACE-ALA-NME"``), or one-letter
                codes of an uncapped, zwitterionic chain (``"AC"``).

        Returns: The molecule with all-L centres and trans peptide bonds, the same every time.
        Raises: InputError: a residue is unknown.

        Examples:
            >>> molecule = Molecule.from_sequence("ACE-ALA-NME")
            >>> molecule.num_atoms, molecule.residue_names
            (22, ('ACE', 'ALA', 'NME'))
        """
        name = sequence.strip().upper()
        graph = cls._from_templates(name, chain_templates(parse_sequence(name)))
        positions = build_positions(graph.topology, graph.chirality_centres, graph.omegas)
        return dataclasses.replace(graph, positions_nm=positions)

    @classmethod
    def from_pdb(cls, path: str | Path) -> Self:
        """Read a peptide from a PDB file and minimise it; the atoms take the force field's order.

        Args:
            path: A file with one chain of known residues, complete with hydrogens.

        Raises: InputError: the file is unreadable, a residue is unknown, misses atoms or is a
            D residue.
        """
        residues = read_residues(path)
        names = tuple(residue.name for residue in residues)
        templates = chain_templates(names)
        positions = match_atoms(residues, templates)
        graph = cls._from_templates("-".join(names), templates)
        for centre in graph.chirality_centres:
            if signed_volume(torch.from_numpy(positions), centre) <= 0:
                label = residues[graph.residue_index[centre[0]]].label
                raise InputError(
                    f"PDB file {path}", expected="L residues",
                    got=f"{label} with {graph.atom_names[centre[0]]} of the other hand",
                    remedy="mirror or correct the structure",
                )  # fmt: skip
        return dataclasses.replace(graph, positions_nm=minimise(graph.topology, positions))

    @classmethod
    def _from_templates(cls, name: str, templates: Sequence[Template]) -> Self:
        """Join templates by peptide bonds; the positions are left at the origin."""
        sizes = [len(template.atom_names) for template in templates]
        starts = [0, *itertools.accumulate(sizes)]
        bonds = [
            (start + i, start + j)
            for start, template in zip(starts, templates, strict=False)
            for i, j in template.bonds
        ]
        for index, (left, right) in enumerate(itertools.pairwise(templates)):
            carbon = starts[index] + left.atom_names.index("C")
            bonds.append((carbon, starts[index + 1] + right.atom_names.index("N")))
        return cls(
            name=name,
            residue_names=tuple(template.name for template in templates),
            residue_index=tuple(np.repeat(np.arange(len(sizes)), sizes).tolist()),
            atom_names=tuple(atom for template in templates for atom in template.atom_names),
            elements=tuple(element for template in templates for element in template.elements),
            bonds=tuple(bonds),
            positions_nm=np.zeros((starts[-1], 3)),
        )

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atom_names)

    @property
    def masses_dalton(self) -> NDArray[np.float64]:
        """Atomic masses, ``(atoms,)`` [Da]."""
        return np.array([app.Element.getBySymbol(symbol).mass._value for symbol in self.elements])

    @property
    def topology(self) -> app.Topology:
        """The molecule as an OpenMM topology."""
        topology = app.Topology()
        chain = topology.addChain()
        residues = [topology.addResidue(name, chain) for name in self.residue_names]
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(symbol), residues[index])
            for name, symbol, index in zip(
                self.atom_names, self.elements, self.residue_index, strict=True
            )
        ]
        for i, j in self.bonds:
            topology.addBond(atoms[i], atoms[j])
        return topology

    @property
    def identity(self) -> str:
        """SHA-256 of elements, bonds and atom names: tells data of another molecule."""
        graph = [self.elements, sorted(map(sorted, self.bonds)), self.atom_names]
        return hashlib.sha256(json.dumps(graph).encode()).hexdigest()

    @property
    def chirality_centres(self) -> tuple[Quadruple, ...]:
        """``(c, a, b, d)`` of every stereocentre, of positive signed volume in the L form."""
        return tuple(
            centre
            for index, residue in enumerate(self.residue_names)
            for owner, names in _STEREOCENTRES
            if owner in (None, residue)
            for centre in self._quadruples([(index, name) for name in names])
        )

    @property
    def equivalent_hydrogens(self) -> tuple[tuple[int, ...], ...]:
        """Hydrogens that rotate into one another: those of each methyl or ammonium group."""
        hydrogens: dict[int, list[int]] = {}
        for i, j in self.bonds:
            for heavy, atom in ((i, j), (j, i)):
                if self.elements[atom] == "H":
                    hydrogens.setdefault(heavy, []).append(atom)
        return tuple(tuple(sorted(group)) for group in hydrogens.values() if len(group) == 3)

    @property
    def formal_charges(self) -> tuple[float, ...]:
        """Formal charge of each atom; their sum is the molecule's [elementary charges]."""
        return formal_charges(self.elements, self.bonds)

    @property
    def phi(self) -> Quadruple:
        """Atoms C, N, CA, C of the first phi torsion."""
        return self._first("phi", [(-1, "C"), (0, "N"), (0, "CA"), (0, "C")])

    @property
    def psi(self) -> Quadruple:
        """Atoms N, CA, C, N of the first psi torsion."""
        return self._first("psi", [(0, "N"), (0, "CA"), (0, "C"), (1, "N")])

    @property
    def omegas(self) -> tuple[Quadruple, ...]:
        """Atoms CA, C, N, CA of every peptide bond, CH3 in place of CA in a cap."""
        return tuple(
            omega
            for index in range(len(self.residue_names) - 1)
            for before, after in itertools.product(("CA", "CH3"), repeat=2)
            for omega in self._quadruples(
                [(index, before), (index, "C"), (index + 1, "N"), (index + 1, after)]
            )
        )

    @property
    def rotatable_torsions(self) -> tuple[Quadruple, ...]:
        """Torsions about all bonds that turn slowly, but for `phi`, `psi` and peptide bonds."""
        return find_rotatable_torsions(
            self.elements, self.bonds, (self.phi, self.psi, *self.omegas)
        )

    def _first(self, torsion: str, atoms: list[tuple[int, str]]) -> Quadruple:
        for index in range(len(self.residue_names)):
            for found in self._quadruples([(index + shift, name) for shift, name in atoms]):
                return found
        raise InputError(
            f"molecule {self.name}", expected=f"a residue with a {torsion} torsion", got="none",
            remedy="use at least two amino acids or one between caps, e.g. ACE-ALA-NME",
        )  # fmt: skip

    def _quadruples(self, atoms: list[tuple[int, str]]) -> Iterator[Quadruple]:
        """Yield the indices of four atoms given by (residue, name), if all of them exist."""
        keys = list(zip(self.residue_index, self.atom_names, strict=True))
        if all(atom in keys for atom in atoms):
            first, second, third, fourth = (keys.index(atom) for atom in atoms)
            yield first, second, third, fourth
