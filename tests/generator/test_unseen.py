"""What a field has never seen is said: the length of a chain, and types of coordinates."""

from pathlib import Path

import pytest

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.generator.unseen import (
    leave_unseen_length,
    leave_unseen_types,
    unseen,
    unseen_notes,
    unseen_of,
    unseen_part,
)
from bnce_dist.generator.verdict import Verdict


def graph(sequence: str) -> Molecule:
    return Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "AAA", "AC"])
def test_of_a_length_that_was_in_training_nothing_is_said(sequence: str, tmp_path: Path) -> None:
    leave_unseen_length(tmp_path, graph(sequence), ["GG", "ACE-GLY-NME"])
    assert not list(tmp_path.iterdir())
    assert unseen_notes({"ess_fraction": 0.5, **unseen(tmp_path)}) == ()


@pytest.mark.parametrize(("fraction", "effective"), [(0.125, "25.0"), (None, "0.0")])
def test_of_another_length_the_effective_samples_are_said(
    fraction: float | None, effective: str, tmp_path: Path
) -> None:
    leave_unseen_length(tmp_path, graph("ACE-ALA-ALA-NME"), ["GG", "ACE-GLY-NME", "AA"])
    metrics = {"ess_fraction": fraction, "ess_num_samples": 200, **unseen(tmp_path)}
    (note,) = unseen_notes(metrics)
    assert "chains of 2 and 3 residues, caps included, none of 4" in note
    assert f"{effective} of 200 samples are effective" in note


@pytest.mark.parametrize(
    ("num_types", "said"),
    [
        (0, None),
        (1, "has SER 0: their"),
        (3, "has SER 0, SER 1, SER 2: their"),
        (5, "has SER 0, SER 1, SER 2 and 2 more: their"),
    ],
)
def test_types_that_no_training_molecule_has_are_named(
    num_types: int, said: str | None, tmp_path: Path
) -> None:
    leave_unseen_types(tmp_path, [f"SER {number}" for number in range(num_types)])
    notes = unseen_notes(unseen(tmp_path))
    assert len(notes) == (said is not None)
    assert said is None or f"No training molecule {said} rest values" in notes[0]


@pytest.mark.parametrize(
    ("sequence", "is_taught"), [("AG", True), ("ALA-GLY", True), ("GA", False)]
)
def test_a_molecule_that_taught_is_no_stranger(sequence: str, is_taught: bool) -> None:
    new = unseen_of(graph(sequence), ["GG", "AG"], ())
    assert unseen_part({"ess_fraction": 0.5, **new}) == new
    notes = ("The field learned from this very molecule.",) if is_taught else ()
    assert unseen_notes(new) == notes


@pytest.mark.parametrize("reliable", [True, False])
def test_a_note_judges_nothing(reliable: bool) -> None:
    verdict = Verdict(reliable, ("Found.",), ()).with_notes(("Noted.",))
    assert verdict == Verdict(reliable, ("Found.", "Noted."), ())
