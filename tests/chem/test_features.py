"""Node features against the published arrays and what is known of the published classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.features import alanine_dipeptide_features, dipeptide_features
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import RESIDUES, chain_templates, parse_sequence
from bnce_dist.core.errors import InputError

GOLDEN = (
    Path(__file__).parents[2].parent
    / "shared"
    / "reference"
    / "published"
    / "unweighted_ot_ema.golden.npz"
)


def graph(sequence: str) -> Molecule:
    """Return a molecule without the seconds that its relaxed structure takes."""
    names = parse_sequence(sequence)
    return Molecule._from_templates(sequence, chain_templates(names))


@pytest.fixture(scope="module")
def alanine_dipeptide() -> Molecule:
    return graph("ACE-ALA-NME")


@pytest.mark.skipif(not GOLDEN.exists(), reason="published arrays are not here")
def test_alanine_dipeptide_has_the_published_features_in_our_order(alanine_dipeptide):
    published = torch.from_numpy(np.load(GOLDEN)["node_features"])
    ours = [1, 0, *range(2, 22)]
    torch.testing.assert_close(alanine_dipeptide_features(alanine_dipeptide), published[ours])


def test_alanine_dipeptide_tells_apart_all_but_the_hydrogens_of_a_methyl(alanine_dipeptide):
    features = alanine_dipeptide_features(alanine_dipeptide)
    same = features @ features.T
    groups = {frozenset(row.nonzero().flatten().tolist()) for row in same}
    methyls = set(map(frozenset, alanine_dipeptide.equivalent_hydrogens))
    assert {group for group in groups if len(group) > 1} == methyls
    assert len(methyls) == 3


def columns(molecule: Molecule) -> dict[tuple[int, str], list[int]]:
    features = dipeptide_features(molecule)
    assert features.shape == (molecule.num_atoms, 76)
    assert (features.sum(1) == 3).all()
    keys = zip(molecule.residue_index, molecule.atom_names, strict=True)
    return {key: row.nonzero().flatten().tolist() for key, row in zip(keys, features, strict=True)}


def test_dipeptide_columns_are_position_type_and_class(alanine_dipeptide):
    """Indices into the published encoding: C is 0, CA 1, H 17, HA 18, HB 19, N 36, OXT 51."""
    atoms = columns(graph("AC"))
    ala, cys = 2 + 0, 2 + 4
    assert atoms[0, "CA"] == [0, ala, 22 + 1]
    assert atoms[1, "C"] == [1, cys, 22 + 0]
    assert atoms[0, "H1"] == atoms[0, "H2"] == atoms[0, "H3"] == [0, ala, 22 + 17]
    assert atoms[0, "HB2"] == [0, ala, 22 + 19]
    assert atoms[1, "OXT"] == [1, cys, 22 + 51]
    assert atoms[1, "SG"] == [1, cys, 22 + 53]


def test_digits_of_rings_stay_and_those_of_carboxylates_go():
    """HD1 is 21, HE2 25, HE 24, HH 30, OE 47 in the published encoding."""
    tyrosine = columns(graph("ET"))
    assert tyrosine[0, "OE1"] == tyrosine[0, "OE2"] == [0, 2 + 6, 22 + 47]
    ring = columns(graph("NY"))
    assert ring[1, "HD1"] == [1, 2 + 18, 22 + 21]
    assert ring[1, "HE2"] == [1, 2 + 18, 22 + 25]
    assert ring[1, "HH"] == [1, 2 + 18, 22 + 30]


def test_the_residues_use_all_classes_at_either_end():
    features = [
        dipeptide_features(graph(sequence))
        for residue in RESIDUES
        for sequence in (f"{residue}-GLY", f"GLY-{residue}")
    ]
    assert (torch.cat(features).sum(0) > 0).all()


def test_other_molecules_are_refused(alanine_dipeptide):
    with pytest.raises(InputError, match="uncapped dipeptide such as AC, got ACE-ALA-NME"):
        dipeptide_features(alanine_dipeptide)
    with pytest.raises(InputError, match="ACE-ALA-NME, got AC"):
        alanine_dipeptide_features(graph("AC"))
