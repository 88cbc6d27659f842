"""What is to be said of a chain of a length that its field has never seen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import parse_sequence
from bnce_dist.data.atomic import read_json, write_json

_FILE_NAME = "unseen_length.json"


def leave_unseen_length(folder: Path, molecule: Molecule, taught: Sequence[str]) -> None:
    """Leave a file that says so if none of the molecules that a field learned from is as long.

    A length is the number of residues, caps included: those are what the field sees.

    Args:
        folder: Of a stage.
        molecule: What the field is asked about.
        taught: Sequences of what it learned from.
    """
    length = len(molecule.residue_names)
    lengths = sorted({len(parse_sequence(sequence)) for sequence in taught})
    if length not in lengths:
        write_json(folder / _FILE_NAME, {"num_residues": length, "trained_lengths": lengths})


def unseen_length(folder: Path) -> dict[str, Any]:
    """Return what `leave_unseen_length` left, for ``metrics.json``; nothing if that is nothing."""
    path = folder / _FILE_NAME
    return dict(read_json(path)) if path.exists() else {}


def length_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one sentence, with the effective samples, if the length was not in training.

    Args:
        metrics: As of ``metrics.json``.
    """
    if "trained_lengths" not in metrics:
        return ()
    *others, last = map(str, metrics["trained_lengths"])
    lengths = f"{', '.join(others)} and {last}" if others else last
    num_samples = metrics["ess_num_samples"]
    effective = (metrics["ess_fraction"] or 0.0) * num_samples
    return (
        f"The field learned from chains of {lengths} residues, caps included, none of "
        f"{metrics['num_residues']}: {effective:.1f} of {num_samples} samples are effective.",
    )
