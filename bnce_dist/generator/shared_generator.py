"""One file for molecules that nobody simulated: the flow and the density of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from bnce_dist.chem.templates import parse_sequence
from bnce_dist.config.load import with_values
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.places import local_path
from bnce_dist.data.torch_file import halved, write_torch
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.model_file import SCHEMA_VERSION, load_state, unusable
from bnce_dist.generator.shared_density import SharedDensity
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.target import Target, TargetConfig


@dataclass(frozen=True)
class SharedGenerator:
    """A trained pair of models of many molecules.

    Args:
        target_config: The distribution that samples are weighted to, but for the molecule.
        emulator: Draws the samples.
        density: Gives their log density in one pass.
    """

    kind: ClassVar[str] = "shared_generator"

    target_config: TargetConfig
    emulator: SharedEmulator
    density: SharedDensity

    def of_molecule(self, sequence: str) -> BoltzmannGenerator:
        """Return the generator of a molecule.

        Args:
            sequence: Of the molecule.

        Raises: InputError: no such molecule, or one with a residue that no training molecule has.
        """
        require_known_residues(sequence, self.emulator.training_molecules)
        config = self.target_config.model_copy(update={"sequence": sequence})
        target = Target.from_config(config)
        emulator, _ = self.emulator.of_molecule(target)
        return BoltzmannGenerator(config, target, emulator, self.density.of_molecule(emulator))

    def save(self, path: str | Path, *, half_precision: bool = False) -> None:
        """Write everything to one file, atomically.

        Args:
            path: The file.
            half_precision: Whether to store the networks' weights in 16 bits.
        """
        models = {"emulator": self.emulator.to_state(), "density": self.density.to_state()}
        if half_precision:
            models = {name: {**one, "weights": halved(one["weights"])}
                      for name, one in models.items()}  # fmt: skip
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "target": self.target_config.model_dump(mode="json"),
            **models,
        }
        write_torch(local_path(path), content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises: InputError: absent, torn, or of something else.
        """
        path = local_path(path)
        content = load_state(path, cls.kind)
        with as_input_error(partial(unusable, path)):
            return cls._from_state(content)

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        return cls(
            with_values(TargetConfig(), state["target"]),
            SharedEmulator.from_state(state["emulator"]),
            SharedDensity.from_state(state["density"]),
        )


def load_field(path: Path) -> tuple[SharedEmulator, SharedDensity | None]:
    """Return the flow in a file, and the density that goes with it if the file has one.

    Args:
        path: What `SharedEmulator.save` or `SharedGenerator.save` wrote.

    Raises: InputError: absent, torn, or of something else.
    """
    content = load_state(path, SharedEmulator.kind, SharedGenerator.kind)
    with as_input_error(partial(unusable, path)):
        if content["kind"] == SharedEmulator.kind:
            return SharedEmulator.from_state(content), None
        density = SharedDensity.from_state(content["density"])
        return SharedEmulator.from_state(content["emulator"]), density


def require_known_residues(sequence: str, taught: Sequence[str]) -> None:
    """Refuse a molecule with a residue that none of others has.

    Args:
        sequence: Of the molecule.
        taught: Sequences of the others.

    Raises: InputError: it has one, or there is no such molecule.
    """
    known = {residue for name in taught for residue in parse_sequence(name)}
    if new := set(parse_sequence(sequence)) - known:
        raise InputError(
            f"molecule {sequence}",
            expected=f"residues of the training molecules ({', '.join(sorted(known))})",
            got=", ".join(sorted(new)),
            remedy="train a model of the molecule itself by `bnce train target.sequence=...`, or "
            "a field that has met them by --transferable",
        )
