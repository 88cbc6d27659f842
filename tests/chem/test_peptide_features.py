"""Features of any peptide: they tell atoms apart, and say the same in chains of any length."""

import dataclasses
import itertools

import pytest
import torch

from bnce_dist.chem.feature_sets import (
    DIPEPTIDE,
    FEATURE_SETS,
    PEPTIDE,
    feature_set_for,
    feature_set_of_width,
)
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.peptide_features import NUM_PEPTIDE_FEATURES, peptide_features
from bnce_dist.chem.templates import (
    D_RESIDUES,
    RESIDUES,
    VARIANTS,
    chain_templates,
    parse_sequence,
)
from bnce_dist.core.errors import InputError

INSIDE = [*RESIDUES, *(name for name in VARIANTS if name != "CYX"), *D_RESIDUES]
AT_ENDS = [*RESIDUES, *D_RESIDUES]
SEQUENCES = [
    *(f"ACE-{name}-{name}-NME" for name in INSIDE),
    *(f"{name}-GLY-{name}" for name in AT_ENDS),
    "ACE-CYX-ALA-CYX-NH2",
    "A" * 64,
]
PLACES = slice(2, 4)


def graph(sequence: str) -> Molecule:
    """Return a molecule without the seconds that its relaxed structure takes."""
    return Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))


def rows(molecule: Molecule, residue: int) -> torch.Tensor:
    """Return the features of one residue's atoms, sorted by their names."""
    atoms = [i for i, index in enumerate(molecule.residue_index) if index == residue]
    atoms.sort(key=lambda i: molecule.atom_names[i])
    return peptide_features(molecule)[atoms]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_only_atoms_that_a_label_alone_tells_apart_have_the_same_features(sequence: str) -> None:
    """Exchanging two such atoms leaves the graph of bonds as it is: it is the same molecule."""
    molecule = graph(sequence)
    bonds = set(map(frozenset, molecule.bonds))
    alike: dict[tuple[float, ...], list[int]] = {}
    for atom, row in enumerate(peptide_features(molecule).tolist()):
        alike.setdefault(tuple(row), []).append(atom)
    for atoms in alike.values():
        for first, second in itertools.combinations(atoms, 2):
            exchanged = {first: second, second: first}
            assert {frozenset(exchanged.get(i, i) for i in bond) for bond in bonds} == bonds
            assert molecule.elements[first] == molecule.elements[second]


def test_the_sequences_use_all_features() -> None:
    used = sum(peptide_features(graph(sequence)).abs().sum(0) for sequence in SEQUENCES)
    assert used.shape == (NUM_PEPTIDE_FEATURES,)
    assert (used > 0).all()


@pytest.mark.parametrize("sequence", ["GLY-SER-GLY", "ACE-ALA-SER-ALA-ALA-NH2", "SER-SER-SER-SER"])
def test_a_residue_inside_a_chain_has_the_same_features_but_for_its_place(sequence: str) -> None:
    longer = graph(sequence)
    shortest = rows(graph("ACE-SER-NME"), 1)
    inside = rows(longer, parse_sequence(sequence).index("SER", 1))
    shortest[:, PLACES] = inside[:, PLACES]
    assert torch.equal(shortest, inside)


def test_places_are_the_numbers_of_residues_before_and_after_in_units_of_four() -> None:
    assert rows(graph("AAAAAA"), 1)[0, PLACES].tolist() == [0.25, 1.0]
    last = rows(graph("ACE-ALA-NME"), 2)[0]
    assert last[:2].tolist() == [0, 1]
    assert last[PLACES].tolist() == [0.5, 0]


def test_a_mirror_image_is_told_from_its_parent() -> None:
    l_form, d_form = (peptide_features(graph(f"ACE-{name}-NME")) for name in ("ALA", "DAL"))
    (differing,) = (l_form != d_form).any(0).nonzero().T
    assert len(differing) == 1


def test_what_is_no_peptide_is_refused() -> None:
    molecule = dataclasses.replace(graph("AC"), residue_names=("ALA", "LIG"))
    with pytest.raises(InputError, match=r"expected a peptide .* got AC with LIG"):
        peptide_features(molecule)


def test_a_field_knows_its_features_by_their_number() -> None:
    for one in FEATURE_SETS.values():
        molecule = graph("AC")
        assert one.of_molecule(molecule).shape == (molecule.num_atoms, one.num_features)
        assert feature_set_of_width(one.num_features) is one
    with pytest.raises(InputError, match=r"expected 76 \(dipeptide\), .* got 21"):
        feature_set_of_width(21)


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        (["AC", "HID-GLY"], DIPEPTIDE),
        (["AC", "ACE-ALA-NME"], PEPTIDE),
        (["AC", "AAA"], PEPTIDE),
        (["ASH-GLY"], PEPTIDE),
        (["DAL-GLY"], PEPTIDE),
    ],
)
def test_dipeptides_without_caps_keep_the_published_features(sequences, expected) -> None:
    assert feature_set_for(sequences) is expected
