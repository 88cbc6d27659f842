"""What is to be said of a molecule with something that its field has never seen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import parse_sequence
from bnce_dist.data.atomic import read_json, write_json

_LENGTH_FILE, _TYPES_FILE = "unseen_length.json", "unseen_types.json"
_NAMES = ("num_residues", "trained_lengths", "unseen_types", "is_taught")
# Of types, in a sentence.
_NUM_NAMED = 3


def leave_unseen_length(folder: Path, molecule: Molecule, taught: Sequence[str]) -> None:
    """Leave a file that says so if none of the molecules that a field learned from is as long.

    A length is the number of residues, caps included: those are what the field sees.

    Args:
        folder: Of a stage.
        molecule: What the field is asked about.
        taught: Sequences of what it learned from.
    """
    length, lengths = len(molecule.residue_names), _lengths(taught)
    if length not in lengths:
        write_json(folder / _LENGTH_FILE, {"num_residues": length, "trained_lengths": lengths})


def leave_unseen_types(folder: Path, types: Sequence[str]) -> None:
    """Leave a file that names the bonds, angles and torsions that no training molecule has, if any.

    Args:
        folder: Of a stage.
        types: Of stiff coordinates.
    """
    if types:
        write_json(folder / _TYPES_FILE, {"unseen_types": list(types)})


def unseen(folder: Path) -> dict[str, Any]:
    """Return what the two left, for ``metrics.json``; nothing if that is nothing."""
    paths = (folder / name for name in (_LENGTH_FILE, _TYPES_FILE))
    return {name: one for path in paths if path.exists() for name, one in read_json(path).items()}


def unseen_of(
    molecule: Molecule, taught: Sequence[str], unseen_types: Sequence[str]
) -> dict[str, Any]:
    """Return what is new to a field, as `unseen` does.

    Args:
        molecule: What the field is asked about.
        taught: Sequences of what it learned from.
        unseen_types: Of stiff coordinates.
    """
    length, lengths = len(molecule.residue_names), _lengths(taught)
    new: dict[str, Any] = {"unseen_types": list(unseen_types)} if unseen_types else {}
    if parse_sequence(molecule.name) in map(parse_sequence, taught):
        new["is_taught"] = True
    if length not in lengths:
        new |= {"num_residues": length, "trained_lengths": lengths}
    return new


def unseen_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one sentence for each thing that was not in training, or that all of it was.

    Args:
        metrics: As of ``metrics.json``.
    """
    taught = ("The field learned from this very molecule.",) if metrics.get("is_taught") else ()
    return (*taught, *_length_notes(metrics), *_type_notes(metrics))


def unseen_part(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a run's metrics `unseen_notes` speaks about."""
    return {name: metrics[name] for name in _NAMES if name in metrics}


def _length_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one sentence, with the effective samples, if the length was not in training."""
    if "trained_lengths" not in metrics:
        return ()
    num_samples = metrics["ess_num_samples"]
    effective = (metrics["ess_fraction"] or 0.0) * num_samples
    *others, last = map(str, metrics["trained_lengths"])
    lengths = f"{', '.join(others)} and {last}" if others else last
    return (
        f"The field learned from chains of {lengths} residues, caps included, none of "
        f"{metrics['num_residues']}: {effective:.1f} of {num_samples} samples are effective.",
    )


def _lengths(taught: Sequence[str]) -> list[int]:
    return sorted({len(parse_sequence(sequence)) for sequence in taught})


def _type_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one sentence if there are bonds, angles or torsions that were not in training."""
    types = metrics.get("unseen_types", ())
    if not types:
        return ()
    rest = f" and {len(types) - _NUM_NAMED} more" if len(types) > _NUM_NAMED else ""
    return (
        f"No training molecule has {', '.join(types[:_NUM_NAMED])}{rest}: their rest values and "
        "widths are the force field's.",
    )
