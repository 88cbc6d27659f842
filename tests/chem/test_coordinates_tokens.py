"""Tokens say of every coordinate which atom it places, and by which others."""

import networkx as nx
import pytest
import torch

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError
from bnce_dist.core.space import MAX_GRAPH_DISTANCE, NUM_RELATIONS

BONDED, ANGLE, TORSION = range(MAX_GRAPH_DISTANCE + 1, NUM_RELATIONS)


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "SP"])
def test_each_coordinate_moves_its_own_atom_against_those_that_place_it(sequence: str) -> None:
    molecule = Molecule.from_sequence(sequence)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    tokens = tokens_of(molecule, zmatrix)
    plain = WhitenedInternal.unwhitened(zmatrix)
    z = plain.encode(torch.from_numpy(molecule.positions_nm)[None])[0]
    slots, relations = torch.tensor(tokens["slots"]), torch.tensor(tokens["relations"])
    # Every coordinate is one atom's.
    assert slots[slots >= 0].sort().values.tolist() == list(range(plain.dim))

    def measured(positions: torch.Tensor, atoms: list[int]) -> float:
        if len(atoms) == 4:
            return float(dihedral(positions, atoms))
        first, middle, *end = (positions[atom] for atom in atoms)
        if not end:
            return float((first - middle).norm())
        cosine = torch.nn.functional.cosine_similarity(first - middle, end[0] - middle, dim=0)
        return float(cosine.acos())

    before = plain.decode(z)[0][0]
    for atom in range(molecule.num_atoms):
        places = [
            (relations[atom] == role).nonzero().flatten().tolist()
            for role in (BONDED, ANGLE, TORSION)
        ]
        for slot in range(4):
            if (column := int(slots[atom, slot])) < 0:
                continue
            count = min(slot, 2) + 1
            atoms = [atom, *(place for (place,) in places[:count])]
            changed = z.clone()
            # Torsions of half a turn stay below it.
            step = -0.01 if z[0, column] > 1 else 0.01
            changed[0, column] += step
            after = plain.decode(changed)[0][0]
            assert measured(after, atoms) - measured(before, atoms) == pytest.approx(step, abs=1e-6)
            assert (column >= plain.num_euclidean) == (slot == 3)


def test_relations_are_distances_in_the_graph_where_no_atom_places_the_other() -> None:
    molecule = Molecule.from_sequence("KG")
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    relations = tokens_of(molecule, zmatrix)["relations"]
    graph = nx.Graph(molecule.bonds)
    roles = 0
    for i in range(molecule.num_atoms):
        for j in range(molecule.num_atoms):
            if relations[i][j] > MAX_GRAPH_DISTANCE:
                roles += 1
                continue
            distance = nx.shortest_path_length(graph, i, j)
            assert relations[i][j] == min(distance, MAX_GRAPH_DISTANCE)
    # The first three atoms lack three, two and one of their three.
    assert roles == 3 * molecule.num_atoms - 6


def test_what_is_no_peptide_has_no_tokens() -> None:
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    stranger = Molecule(**{**molecule.__dict__, "residue_names": ("ACE", "LIG", "NME")})
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    with pytest.raises(InputError, match="LIG"):
        tokens_of(stranger, zmatrix)
