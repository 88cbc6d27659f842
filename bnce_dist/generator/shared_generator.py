"""One file for molecules that nobody simulated: the flow and the density of all of them."""

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.config.load import with_values
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.places import is_folder, local_path
from bnce_dist.data.room import require_memory
from bnce_dist.data.torch_file import halved, write_torch
from bnce_dist.generator.boltzmann_generator import BATCH, BoltzmannGenerator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.model_file import SCHEMA_VERSION, load_state, unusable
from bnce_dist.generator.shared_density import SharedDensity
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.generator.unseen import unseen_of

FILE_NAME = "shared_generator.pt"
"""What a transferable run calls its own."""
_COPIES_OF_LOGITS = 3
"""Of attention that are held at a time where no derivative is asked for."""


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        taught = self.emulator.training_molecules
        return f"{type(self).__name__}(of {len(taught)} molecules: {', '.join(taught)})"

    @property
    def residues(self) -> list[str]:
        """Names of the residues that it has met."""
        taught = self.emulator.training_molecules
        return sorted({residue for name in taught for residue in parse_sequence(name)})

    def of_molecule(self, sequence: str) -> BoltzmannGenerator:
        """Return the generator of a molecule; its ``metrics`` say what of it nobody has met.

        Args:
            sequence: Of the molecule.

        Raises: InputError: no such molecule, or one with a residue that no training molecule has.
        """
        if not isinstance(sequence, str):
            raise InputError(
                "sequence", expected="a text, KS or ACE-ALA-NME", got=sequence,
                remedy="give the letters or names of the residues",
            )  # fmt: skip
        taught, sequence = self.emulator.training_molecules, sequence.strip().upper()
        self._require_known(sequence)
        self._require_room(sequence)
        config = self.target_config.model_copy(update={"sequence": sequence})
        target = Target.from_config(config)
        emulator, unknown = self.emulator.of_molecule(target)
        density, new = (
            self.density.of_molecule(emulator),
            unseen_of(target.molecule, taught, unknown),
        )
        return BoltzmannGenerator(config, target, emulator, density, new)

    def _require_known(self, sequence: str) -> None:
        names = parse_sequence(sequence)
        if new := set(names) - set(self.residues):
            chain_templates(names)
            raise InputError(
                f"molecule {sequence}",
                expected=f"residues of the training molecules ({', '.join(self.residues)})",
                got=", ".join(sorted(new)),
                remedy=f"`bnce train target.sequence={sequence}` trains a model of it, or "
                "--transferable a field that has met them",
            )

    def _require_room(self, sequence: str) -> None:
        """Refuse a chain whose pairs of atoms do not fit, before a structure of it is made."""
        num_atoms = sum(len(one.atom_names) for one in chain_templates(parse_sequence(sequence)))
        num_logits = BATCH * self.emulator.field.transformer.num_heads * num_atoms**2
        require_memory(
            f"{BATCH} samples of {num_atoms} atoms side by side",
            _COPIES_OF_LOGITS * 4 * num_logits,
            "ask for a shorter chain, or on a machine with more memory",
        )

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
        """Read a file that ``save`` wrote, or the one in the folder of a transferable run.

        Raises: InputError: absent, unfinished, torn, or of something else.
        """
        path = local_path(path)
        if is_folder(path):
            if not is_shared(path):
                raise InputError(
                    f"folder {path}",
                    expected="that of a run of many molecules (--transferable)",
                    got="one without their field",
                    remedy="leave the sequence out if it is of one molecule",
                )
            path = RunFolder(path / "field").stage("train_energy") / FILE_NAME
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


def is_shared(path: str | Path) -> bool:
    """Return whether a folder is that of a transferable run, or a file is of many molecules."""
    path = local_path(path)
    if is_folder(path):
        return (path / "field").is_dir()
    with contextlib.suppress(OSError):  # what cannot be looked at, whoever loads it says so
        return path.exists() and load_state(path)["kind"] == SharedGenerator.kind
    return False


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
