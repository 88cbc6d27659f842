"""What the files of trained models have in common."""

import pickle
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from bnce_dist.chem.coordinates import Coordinates
from bnce_dist.core.errors import InputError
from bnce_dist.core.path import ProductPath
from bnce_dist.data.torch_file import write_torch
from bnce_dist.generator.architectures import (
    VelocityModel,
    build_path,
)
from bnce_dist.nn.energy_model import EnergyModel

SCHEMA_VERSION = 1


class ModelFile(ABC):
    """What the two have in common: a path from data to prior, and a file.

    Its ``kind`` labels the file.
    """

    kind: ClassVar[str]
    coordinates: Coordinates
    interpolant: str

    @property
    def path(self) -> ProductPath:
        """The path from data to prior."""
        coordinates = self.coordinates
        return build_path(self.interpolant, coordinates.num_euclidean, coordinates.num_circular)

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
        return cls.from_state(load_state(path, cls.kind, molecule_identity))


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


def load_state(path: Path, kind: str, molecule_identity: str | None = None) -> dict[str, Any]:
    """Read a model file.

    Args:
        path: A model file.
        kind: What it must be of.
        molecule_identity: If given, the identity it must have.

    Raises: InputError: absent, torn, or of something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = (content["schema_version"], content["kind"], content["molecule"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"model {path}",
            expected=f"a complete {kind} file",
            got=(str(error) or type(error).__name__).splitlines()[0],
            remedy="delete it and run the stage that writes it again",
        ) from error
    expected = (SCHEMA_VERSION, kind, molecule_identity or found[2])
    if found != expected:
        raise InputError(
            f"model {path}",
            expected="schema version {}, kind {}, molecule {:.12}".format(*expected),
            got="schema version {}, kind {}, molecule {:.12}".format(*found),
            remedy="give the file that belongs to this molecule and purpose",
        )
    return content
