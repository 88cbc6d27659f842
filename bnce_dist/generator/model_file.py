"""What the files of trained models have in common."""

import copy
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from bnce_dist.chem.coordinates import Coordinates
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import Space
from bnce_dist.data.torch_file import read_torch, write_torch
from bnce_dist.generator.architectures import VelocityModel, build_path
from bnce_dist.nn.energy_model import EnergyModel

SCHEMA_VERSION = 1
_REMEDIES = {
    "shared_emulator": "ask it of a molecule: bnce train --transferable --molecules SEQUENCE "
    "transferable.field=FILE; the folder of the run that this makes is a model",
    "shared_generator": "name a molecule: --sequence KS, or SharedGenerator.load(FILE)"
    ".of_molecule(SEQUENCE)",
}
_OTHER_FILE = "give the file that belongs to this molecule and purpose"


class ModelFile(ABC):
    """What the two have in common: a path from data to prior, and a file.

    Its ``kind`` labels the file.
    """

    kind: ClassVar[str]
    coordinates: Coordinates
    interpolant: str

    @property
    @abstractmethod
    def model(self) -> VelocityModel | EnergyModel:
        """The network."""

    @property
    def device(self) -> torch.device:
        """Where the network and the coordinates compute, and where points have to be."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        """Return this on another device."""
        if device == self.device:
            return self
        moved = copy.deepcopy(self)
        moved.coordinates.to(device)
        moved.model.to(device)
        return moved

    @property
    def space(self) -> Space:
        """The space that the model lives in."""
        return Space(self.coordinates.num_euclidean, self.coordinates.num_circular)

    @property
    def path(self) -> ProductPath:
        """The path from data to prior."""
        space = Space(self.coordinates.num_euclidean, self.coordinates.num_circular)
        return build_path(self.interpolant, space)

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this object."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `to_state` described."""

    def save(self, path: Path) -> None:
        """Write this to one file, atomically."""
        write_torch(path, self.to_state())

    @classmethod
    def load(cls, path: Path, *, molecule_identity: str | None = None) -> Self:
        """Read a file that ``save`` wrote.

        Args:
            path: The file.
            molecule_identity: If given, the identity it must have.

        Raises: InputError: absent, torn, or of something else.
        """
        content = load_state(path, cls.kind, molecule_identity=molecule_identity)
        with as_input_error(partial(unusable, path)):
            return cls.from_state(content)


def model_state(
    kind: str,
    molecule_identity: str,
    coordinates: Coordinates,
    model: VelocityModel | EnergyModel,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return what a model file holds.

    Args:
        kind: Label of the file.
        molecule_identity: Identity of the molecule.
        coordinates: Between positions and model space.
        model: The network.
        settings: Everything else that the model's class takes.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "molecule": molecule_identity,
        "coordinates": coordinates.to_state(),
        "model": model.config(),
        "weights": model.state_dict(),
        "settings": settings,
    }


def load_state(path: Path, *kinds: str, molecule_identity: str | None = None) -> dict[str, Any]:
    """Read a model file.

    Args:
        path: A model file.
        kinds: What it may be of; anything if none is given.
        molecule_identity: If given, the identity it must have.

    Raises: InputError: absent, torn, or of something else.
    """
    content = read_torch(
        path,
        "model",
        expected=f"a complete {' or '.join(kinds) or 'model'} file",
        remedy="copy it again from where it came, or delete it and run the stage that writes it",
    )
    found = tuple(content.get(name) for name in ("schema_version", "kind", "molecule"))
    kind = found[1] if found[1] in kinds or not kinds else kinds[0]
    expected = (SCHEMA_VERSION, kind, molecule_identity or found[2])
    if found != expected:
        raise InputError(
            f"model {path}",
            expected="schema version {}, kind {}, molecule {!s:.12}".format(*expected),
            got="schema version {}, kind {}, molecule {!s:.12}".format(*found),
            remedy=_REMEDIES.get(str(found[1]), _OTHER_FILE),
        )
    return content


def unusable(path: Path, got: object) -> InputError:
    """Return the error of a file that is whole but holds no model that can be built."""
    return InputError(
        f"model {path}",
        expected="the fields and weights of a model of this version",
        got=got,
        remedy="run the stage that writes it again, or use the version that wrote it",
    )
