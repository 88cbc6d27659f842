"""Molecules: what is bonded to what, which way round, and a relaxed structure.

OpenMM and what needs it are imported where a molecule is built or drawn up for it: one from a file
of its state needs neither.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

from bnce_dist.chem.elements import COVALENT_RADIUS_NM, MASS_DALTON
from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.graph import find_rotatable_torsions, formal_charges, stereocentres
from bnce_dist.chem.templates import D_RESIDUES, Template, chain_templates, parse_sequence
from bnce_dist.core.errors import InputError

if TYPE_CHECKING:
    from openmm import app

logger = logging.getLogger(__name__)

Quadruple = tuple[int, int, int, int]
MOST_ATOMS_BUILT = 600
"""Of a chain that is built from its sequence: relaxing a random one takes their number to the power
of 2.5, and 200 atoms take a minute."""
_FEW_ATOMS = 120
"""Built in seconds."""

# Stereocentre c of a residue (any residue: None), then substituents a, b, d with
# (a-c).((b-c)x(d-c)) > 0 in the L form: S at CA (R for CYS), S at ILE CB, R at THR CB.
_STEREOCENTRES = (
    (None, ("CA", "N", "C", "CB")),
    ("ILE", ("CB", "CA", "CG1", "CG2")),
    ("THR", ("CB", "CA", "OG1", "CG2")),
)


@dataclass(frozen=True)
class Molecule:
    """A molecule: its graph, its handedness and one relaxed structure.

    Holds plain data only, so that it pickles small and fast.

    Args:
        name: Of a peptide its sequence, e.g. ``"ACE-ALA-NME"``.
        residue_names: Name of each residue.
        residue_index: Residue of each atom.
        atom_names: Name of each atom, in the force field's order.
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms.
        positions_nm: Relaxed positions, ``(atoms, 3)`` [nm].
        chirality_centres: ``(c, a, b, d)`` of every stereocentre, of positive signed volume in this
            molecule.
        torsions: The two that states and umbrellas are about; the first phi and psi if none.
    """

    name: str
    residue_names: tuple[str, ...]
    residue_index: tuple[int, ...]
    atom_names: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    positions_nm: NDArray[np.float64] = field(repr=False, compare=False)
    chirality_centres: tuple[Quadruple, ...] = ()
    torsions: tuple[Quadruple, ...] = ()

    @classmethod
    def from_sequence(cls, sequence: str) -> Self:
        """Build a peptide from its sequence alone.

        Args:
            sequence: Three-letter names joined by hyphens (``"ACE-ALA-NME"``), or one-letter
                codes of an uncapped, zwitterionic chain (``"AC"``). D residues have the names of
                the Protein Data Bank (``"ACE-DAL-NME"``); two CYX are bonded to each other.

        Returns: The molecule with trans peptide bonds, the same every time.
        Raises: InputError: a residue is unknown.

        Examples:
            >>> molecule = Molecule.from_sequence("ACE-ALA-NME")
            >>> molecule.num_atoms, molecule.residue_names
            (22, ('ACE', 'ALA', 'NME'))
        """
        graph = cls.unplaced(sequence)
        return dataclasses.replace(graph, positions_nm=_relaxed_positions(graph).copy())

    @classmethod
    def unplaced(cls, sequence: str) -> Self:
        """Return what `from_sequence` does in no time, but with all atoms at the origin.

        Raises: InputError: a residue is unknown.
        """
        name = sequence.strip().upper()
        return cls._from_templates(name, chain_templates(parse_sequence(name)))

    @classmethod
    def from_pdb(cls, path: str | Path) -> Self:
        """Read a peptide from a file and minimise it; the atoms take the force field's order.

        Args:
            path: A PDB or mmCIF (``.cif``) file with one chain of known residues, complete with
                hydrogens.

        Raises: InputError: the file is unreadable, a residue is unknown, misses atoms, or has
            stereocentres that belong to no amino acid's mirror image, or residues are not bonded
            to the next, nor cysteines without HG to each other.
        """
        from bnce_dist.chem.initial_structure import minimise
        from bnce_dist.chem.pdb_file import (
            file_label,
            match_atoms,
            read_residues,
            require_disulfide,
            require_peptide_bonds,
        )

        residues = read_residues(path)
        names = tuple(residue.name for residue in residues)
        positions = torch.from_numpy(match_atoms(residues, chain_templates(names), path))
        require_peptide_bonds(residues, path)
        require_disulfide(residues, path)
        # Whether a residue is D shows in its first stereocentre, at CA.
        as_l = cls._from_templates("-".join(names), chain_templates(names))
        mirrored = {
            as_l.residue_index[centre[0]]
            for centre in as_l.chirality_centres
            if as_l.atom_names[centre[0]] == "CA" and signed_volume(positions, centre) <= 0
        }
        names = tuple(
            _other_hand(name) if index in mirrored else name for index, name in enumerate(names)
        )
        graph = cls._from_templates("-".join(names), chain_templates(names))
        for centre in graph.chirality_centres:
            if signed_volume(positions, centre) <= 0:
                label = residues[graph.residue_index[centre[0]]].label
                raise InputError(
                    file_label(path),
                    expected="amino acids, or mirror images that have a name (DAL, DAR ...)",
                    got=f"{label} with {graph.atom_names[centre[0]]} of the other hand",
                    remedy="correct the structure",
                )  # fmt: skip
        return dataclasses.replace(graph, positions_nm=minimise(graph.topology, positions.numpy()))

    @classmethod
    def from_topology(
        cls, name: str, topology: app.Topology, positions_nm: NDArray[np.float64]
    ) -> Self:
        """Take a molecule of any kind as it is: graph, names and handedness.

        Args:
            name: What to call it.
            topology: One molecule, with all its bonds.
            positions_nm: ``(atoms, 3)`` [nm].

        Raises: InputError: several molecules, bonds that are missing, or an unknown element.
        """
        atoms = list(topology.atoms())
        elements = tuple("?" if atom.element is None else atom.element.symbol for atom in atoms)
        bonds = tuple(sorted((min(b), max(b)) for b in _bonded_indices(topology)))
        _require_one_molecule(name, elements, bonds)
        positions = torch.from_numpy(positions_nm)
        return cls(
            name=name,
            residue_names=tuple(residue.name for residue in topology.residues()),
            residue_index=tuple(atom.residue.index for atom in atoms),
            atom_names=tuple(atom.name for atom in atoms),
            elements=elements,
            bonds=bonds,
            positions_nm=positions_nm,
            chirality_centres=tuple(
                centre if signed_volume(positions, centre) > 0 else _mirrored(centre)
                for centre in stereocentres(elements, bonds)
            ),
        )

    def to_state(self) -> dict[str, Any]:
        """Return plain types from which `from_state` rebuilds this."""
        state = dataclasses.asdict(self)
        return {**state, "positions_nm": self.positions_nm.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `to_state` described."""
        return cls(**{**state, "positions_nm": np.array(state["positions_nm"])})

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
        graph = cls(
            name=name,
            residue_names=tuple(template.name for template in templates),
            residue_index=tuple(np.repeat(np.arange(len(sizes)), sizes).tolist()),
            atom_names=tuple(atom for template in templates for atom in template.atom_names),
            elements=tuple(element for template in templates for element in template.elements),
            bonds=(*bonds, *_disulfide(name, templates, starts)),
            positions_nm=np.zeros((starts[-1], 3)),
        )
        return dataclasses.replace(graph, chirality_centres=tuple(graph._centres_by_name()))

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atom_names)

    @property
    def masses_dalton(self) -> NDArray[np.float64]:
        """Atomic masses, ``(atoms,)`` [Da]."""
        return np.array([MASS_DALTON[symbol] for symbol in self.elements])

    @property
    def topology(self) -> app.Topology:
        """The molecule as an OpenMM topology."""
        from openmm import app

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
        """SHA-256 of graph, atom names and hand: tells data of another molecule."""
        graph = [self.elements, sorted(map(sorted, self.bonds)), self.atom_names]
        # The identities of peptides are older than those of other molecules.
        if not set(self.chirality_centres) <= set(self._l_centres()):
            graph.append(self.chirality_centres)
        return hashlib.sha256(json.dumps(graph).encode()).hexdigest()

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
        """Atoms C, N, CA, C of the first phi torsion, or the first of `torsions`."""
        if self.torsions:
            return self.torsions[0]
        return self._first("phi", [(-1, "C"), (0, "N"), (0, "CA"), (0, "C")])

    @property
    def psi(self) -> Quadruple:
        """Atoms N, CA, C, N of the first psi torsion, or the second of `torsions`."""
        if self.torsions:
            return self.torsions[1]
        return self._first("psi", [(0, "N"), (0, "CA"), (0, "C"), (1, "N")])

    @property
    def torsion_labels(self) -> tuple[str, str]:
        """What figures call `phi` and `psi`: the names of their atoms where they are others."""
        if not self.torsions:
            return "φ", "ψ"
        first, second = ("–".join(self.atom_names[i] for i in t) for t in self.torsions)
        return first, second

    @property
    def omegas(self) -> tuple[Quadruple, ...]:
        """Atoms CA, C, N, CA of every peptide bond, CH3 in place of CA in a cap."""
        return tuple(
            omega
            for index in range(len(self.residue_names) - 1)
            for before, after in itertools.product(("CA", "CH3"), repeat=2)
            for omega in self.chains_of_four(
                [(index, before), (index, "C"), (index + 1, "N"), (index + 1, after)]
            )
        )

    @property
    def rotatable_torsions(self) -> tuple[Quadruple, ...]:
        """Torsions about all bonds that turn slowly, but for `phi`, `psi` and peptide bonds."""
        return find_rotatable_torsions(
            self.elements, self.bonds, (self.phi, self.psi, *self.omegas)
        )

    def _l_centres(self) -> Iterator[Quadruple]:
        """Yield the stereocentres of amino acids, of positive signed volume in the L form."""
        for index, residue in enumerate(self.residue_names):
            for owner, names in _STEREOCENTRES:
                if owner in (None, D_RESIDUES.get(residue, residue)):
                    yield from self.quadruples([(index, name) for name in names])

    def _centres_by_name(self) -> Iterator[Quadruple]:
        """Yield the same, of positive signed volume in the form that the residue's name says."""
        for centre in self._l_centres():
            is_d = self.residue_names[self.residue_index[centre[0]]] in D_RESIDUES
            yield _mirrored(centre) if is_d else centre

    def _first(self, torsion: str, atoms: list[tuple[int, str]]) -> Quadruple:
        for index in range(len(self.residue_names)):
            for found in self.chains_of_four([(index + shift, name) for shift, name in atoms]):
                return found
        raise InputError(
            f"molecule {self.name}", expected=f"a residue with a {torsion} torsion", got="none",
            remedy="name target.torsions, or use two amino acids or one between caps (ACE-ALA-NME)",
        )  # fmt: skip

    def quadruples(self, atoms: Sequence[tuple[int, str]]) -> Iterator[Quadruple]:
        """Yield the indices of four atoms given by (residue, name), if all of them exist."""
        keys = list(zip(self.residue_index, self.atom_names, strict=True))
        if all(atom in keys for atom in atoms):
            first, second, third, fourth = (keys.index(atom) for atom in atoms)
            yield first, second, third, fourth

    def chains_of_four(self, atoms: Sequence[tuple[int, str]]) -> Iterator[Quadruple]:
        """Do what `quadruples` does where each of the four is bonded to the next.

        Residues that follow each other need not be: one may begin a second chain.
        """
        bonds = {frozenset(bond) for bond in self.bonds}
        for found in self.quadruples(atoms):
            if bonds.issuperset(map(frozenset, itertools.pairwise(found))):
                yield found


@functools.lru_cache(maxsize=256)
def _relaxed_positions(graph: Molecule) -> NDArray[np.float64]:
    """Return the positions that belong to a graph; a sweep or a fleet asks for them many times."""
    from bnce_dist.chem.initial_structure import build_positions

    if graph.num_atoms > MOST_ATOMS_BUILT:
        raise InputError(
            "sequence", expected=f"a chain of at most {MOST_ATOMS_BUILT} atoms",
            got=f"{graph.num_atoms} in {len(graph.residue_names)} residues",
            remedy="give its structure by target.pdb, or take a shorter chain",
        )  # fmt: skip
    if graph.num_atoms > _FEW_ATOMS:
        logger.info("building a structure of %d atoms, a minute or more", graph.num_atoms)
    return build_positions(graph.topology, graph.chirality_centres, graph.omegas)


def _mirrored(centre: Quadruple) -> Quadruple:
    """Return the same centre of the other hand."""
    return (centre[0], centre[1], centre[3], centre[2])


def _other_hand(residue: str) -> str:
    """Return the name of an amino acid's mirror image; the same if it has none."""
    d_name = {l_name: name for name, l_name in D_RESIDUES.items()}
    return D_RESIDUES.get(residue) or d_name.get(residue, residue)


def _disulfide(
    name: str, templates: Sequence[Template], starts: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the bond between the sulphurs of CYX, if there are two."""
    sulphurs = [
        start + template.atom_names.index("SG")
        for start, template in zip(starts, templates, strict=False)
        if template.name == "CYX"
    ]
    if len(sulphurs) not in (0, 2):
        raise InputError(
            f"molecule {name}", expected="no CYX (CYS without HG), or two bonded to each other",
            got=f"{len(sulphurs)}", remedy="name free cysteines CYS and give them HG",
        )  # fmt: skip
    return [(sulphurs[0], sulphurs[1])] if sulphurs else []


def _bonded_indices(topology: app.Topology) -> Iterator[tuple[int, int]]:
    for bond in topology.bonds():
        yield bond[0].index, bond[1].index


def _require_one_molecule(
    name: str, elements: Sequence[str], bonds: Sequence[tuple[int, int]]
) -> None:
    for index, element in enumerate(elements):
        if element not in COVALENT_RADIUS_NM:
            raise InputError(
                f"molecule {name}",
                expected=f"atoms among {', '.join(COVALENT_RADIUS_NM)}",
                got=f"{element} as atom {index + 1}",
                remedy="remove ions, extra sites and drude particles",
            )
    graph = nx.Graph(bonds)
    graph.add_nodes_from(range(len(elements)))
    pieces = nx.number_connected_components(graph)
    if pieces != 1 or len(elements) < 4:
        raise InputError(
            f"molecule {name}",
            expected="one molecule of four atoms or more, with all its bonds",
            got=f"{len(elements)} atoms in {pieces} pieces",
            remedy="keep one molecule, without water and ions; a PDB file needs CONECT records",
        )
