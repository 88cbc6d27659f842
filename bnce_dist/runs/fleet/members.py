"""Who takes part in a fleet, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError
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
        sequences: Separated by commas, e.g. ``"AC,ET,GN"``.
        config: Of every member, but for the molecule.
        folder: Of the fleet; every member gets a folder of its own in it.

    Raises: InputError: no sequence, or one twice.
    """
    names = [name.strip() for name in sequences.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            "--molecules",
            expected="different sequences separated by commas, e.g. AC,ET,GN",
            got=repr(sequences),
            remedy="correct the list",
        )
    return [Member(name, _of_molecule(config, name), RunFolder(folder / name)) for name in names]


def _of_molecule(config: Config, sequence: str) -> Config:
    target = config.target.model_copy(update={"sequence": sequence, "pdb": None})
    return config.model_copy(update={"target": target})
