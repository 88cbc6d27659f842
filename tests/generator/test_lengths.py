"""A chain of a length that its field has never seen is said to be one."""

from pathlib import Path

import pytest

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.generator.lengths import leave_unseen_length, length_notes, unseen_length
from bnce_dist.generator.verdict import Verdict


def graph(sequence: str) -> Molecule:
    return Molecule._from_templates(sequence, chain_templates(parse_sequence(sequence)))


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "AAA", "AC"])
def test_of_a_length_that_was_in_training_nothing_is_said(sequence: str, tmp_path: Path) -> None:
    leave_unseen_length(tmp_path, graph(sequence), ["GG", "ACE-GLY-NME"])
    assert not list(tmp_path.iterdir())
    assert length_notes({"ess_fraction": 0.5, **unseen_length(tmp_path)}) == ()


@pytest.mark.parametrize(("fraction", "effective"), [(0.125, "25.0"), (None, "0.0")])
def test_of_another_length_the_effective_samples_are_said(
    fraction: float | None, effective: str, tmp_path: Path
) -> None:
    leave_unseen_length(tmp_path, graph("ACE-ALA-ALA-NME"), ["GG", "ACE-GLY-NME", "AA"])
    metrics = {"ess_fraction": fraction, "ess_num_samples": 200, **unseen_length(tmp_path)}
    (note,) = length_notes(metrics)
    assert "chains of 2 and 3 residues, caps included, none of 4" in note
    assert f"{effective} of 200 samples are effective" in note


@pytest.mark.parametrize("reliable", [True, False])
def test_a_note_judges_nothing(reliable: bool) -> None:
    verdict = Verdict(reliable, ("Found.",), ()).with_notes(("Noted.",))
    assert verdict == Verdict(reliable, ("Found.", "Noted."), ())
