"""Who takes part in a fleet, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config


@dataclass(frozen=True)
class Member:
    """One molecule of a fleet.

    Args:
        name: Its sequence, and the variant if there is one; also names its folder.
        config: Of its run.
        folder: Of its run.
    """

    name: str
    config: Config
    folder: RunFolder


@dataclass(frozen=True)
class Outcome:
    """What became of one molecule.

    Args:
        name: Of its run: its sequence, and the variant after an underscore if there is one.
        metrics: Content of its ``metrics.json``; none if it failed or was to stop earlier.
        error: Why it failed, in one line; empty if it did not.
        variant: What tells several runs of one molecule apart.
    """

    name: str
    metrics: Mapping[str, Any] | None = None
    error: str = ""
    variant: str = ""

    @property
    def sequence(self) -> str:
        """The molecule's sequence."""
        return self.name.removesuffix(f"_{self.variant}")


def members_of(sequences: str, config: Config, folder: Path) -> list[Member]:
    """Return one member per sequence, all with the same settings otherwise.

    Args:
        sequences: Separated by commas, e.g. ``"AC,ET,GN"``; or a file with one a line, or in FASTA.
        config: Of every member, but for the molecule.
        folder: Of the fleet; every member gets a folder of its own in it.

    Raises: InputError: no sequence, or one twice.
    """
    names = _listed(sequences)
    if not names or not all(names) or len(set(names)) < len(names):
        twice = sorted({name for name in names if name and names.count(name) > 1})
        fault = f"{', '.join(twice)} twice" if twice else "an empty one" if names else "none"
        raise InputError(
            "--molecules",
            expected="different sequences separated by commas, e.g. AC,ET,GN, or a file of them",
            got=f"{sequences!r}, with {fault}",
            remedy="correct the list",
        )
    return [Member(name, _of_molecule(config, name), RunFolder(folder / name)) for name in names]


def _listed(sequences: str) -> list[str]:
    """Return the sequences of a list or of a file; of FASTA, without the titles."""
    is_place = "/" in sequences or sequences.startswith("~")
    path = local_path(sequences) if is_place else Path(sequences)
    if not path.exists() and (is_place or path.suffix):
        raise InputError(
            f"--molecules {path}", expected="a file", got="nothing there", remedy="check the path"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--molecules {path}",
            expected="a text file of sequences",
            got=error,
            remedy="write one sequence a line, or FASTA",
        ) from error
    if lines is None:
        return [name.strip() for name in sequences.split(",")]
    if any(line.startswith(">") for line in lines):
        records = "\n".join(lines).split(">")[1:]
        return ["".join(record.splitlines()[1:]).strip() for record in records]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _of_molecule(config: Config, sequence: str) -> Config:
    files = {
        "target.topology": config.target.topology,
        "target.pdb": config.target.pdb,
        "dataset.trajectory": config.dataset.trajectory,
        "reference.trajectory": config.reference.trajectory,
    }
    for setting, file in files.items():
        if file is not None:
            raise InputError(
                f"--molecules with {setting}",
                expected="molecules that their sequences tell",
                got=f"the one in {file}",
                remedy=f"leave {setting} out, or run it without --molecules",
            )
    target = config.target.model_copy(update={"sequence": sequence})
    refines = None if config.refines is None else str(Path(config.refines) / sequence)
    return config.model_copy(update={"target": target, "refines": refines})
