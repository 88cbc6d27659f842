"""A molecule in internal coordinates as tokens, one per atom, for models of many molecules."""

import networkx as nx
import numpy as np

from bnce_dist.chem.coordinates.zmatrix import ABSENT, ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.peptide_features import peptide_features
from bnce_dist.core.space import MAX_GRAPH_DISTANCE, NUM_SLOTS, Tokens


def tokens_of(molecule: Molecule, zmatrix: ZMatrix) -> Tokens:
    """Return one token per atom, in the order of the atoms.

    Args:
        molecule: A chain of amino acids and caps.
        zmatrix: Of the same molecule; with its layout of ``WhitenedInternal``'s vectors.

    Raises: InputError: a residue or an atom that no peptide has.
    """
    slots = _slots(zmatrix)
    present = (slots >= 0).astype(np.float64)
    features = np.concatenate([peptide_features(molecule).numpy(), present], axis=1)
    return {
        "features": features.tolist(),
        "relations": _relations(molecule, zmatrix).tolist(),
        "slots": slots.tolist(),
    }


def _slots(zmatrix: ZMatrix) -> np.ndarray:
    """Return where the coordinates of each atom stand in a vector, ``(atoms, 4)``."""
    num_atoms, num_circular = zmatrix.num_atoms, sum(zmatrix.circular)
    first_narrow, first_circular = 2 * num_atoms - 3, 3 * num_atoms - 6 - num_circular
    slots = np.full((num_atoms, NUM_SLOTS), -1)
    atoms = [row[0] for row in zmatrix.rows]
    slots[atoms[1:], 0] = np.arange(num_atoms - 1)
    slots[atoms[2:], 1] = np.arange(num_atoms - 1, first_narrow)
    circular = np.array(zmatrix.circular, dtype=bool)
    turning = np.array(atoms[3:], dtype=int)
    slots[turning[~circular], 2] = np.arange(first_narrow, first_circular)
    slots[turning[circular], 3] = first_circular + np.arange(num_circular)
    return slots


def _relations(molecule: Molecule, zmatrix: ZMatrix) -> np.ndarray:
    """Return distances in the graph, and the roles of the atoms that place one, as numbers."""
    graph = nx.Graph(molecule.bonds)
    relations = np.zeros((molecule.num_atoms, molecule.num_atoms), dtype=int)
    for atom, distances in nx.all_pairs_shortest_path_length(graph):
        for other, distance in distances.items():
            relations[atom, other] = min(distance, MAX_GRAPH_DISTANCE)
    for atom, *references in zmatrix.rows:
        for role, reference in enumerate(references):
            if reference != ABSENT:
                relations[atom, reference] = MAX_GRAPH_DISTANCE + 1 + role
    return relations
