"""What a reference simulation leaves behind: its free energy and its weighted frames."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.data.atomic import atomic_path, read_json, write_json

_RENAMED = {
    "energies_kt": "reduced_potential",
    "energies_log_weights": "potential_log_weights",
}
"""What arrays in the files of version 0.1 are called now."""


@dataclass(frozen=True)
class Energies:
    """Weighted reduced potentials.

    Args:
        reduced_potential: ``(energies,)`` [kT].
        log_weights: Up to a constant, ``(energies,)`` [nats].
    """

    reduced_potential: np.ndarray
    log_weights: np.ndarray


@dataclass(frozen=True)
class Reference:
    """A reference simulation as everything after it reads it; frames are flat arrays.

    Args:
        result: Free energy, standard error and verdict, as in ``result.json``.
        phi: ``(frames,)`` [rad].
        psi: ``(frames,)`` [rad].
        log_weights: Of the unbiased ensemble, normalised, ``(frames,)``.
        replica: Independent replica of each frame, ``(frames,)``.
        reduced_potential: Reduced potentials of some of the frames, ``(energies,)`` [kT].
        potential_log_weights: Log weights of those frames, ``(energies,)``.
    """

    result: dict[str, Any]
    phi: np.ndarray
    psi: np.ndarray
    log_weights: np.ndarray
    replica: np.ndarray
    reduced_potential: np.ndarray
    potential_log_weights: np.ndarray

    @classmethod
    def load(cls, simulate_folder: Path) -> "Reference":
        """Read what `save` left in the folder of a simulation."""
        folder = simulate_folder / "reference"
        path = folder / "frames.npz"
        with (
            as_input_error(partial(_unreadable, path)),
            np.load(path, allow_pickle=False) as frames,
        ):
            arrays = {_RENAMED.get(name, name): array for name, array in frames.items()}
            return cls(read_json(folder / "result.json"), **arrays)

    @classmethod
    def load_if_any(cls, simulate_folder: Path) -> "Reference | None":
        """Read what `save` left, or return None where it left nothing."""
        there = (simulate_folder / "reference").exists()
        return cls.load(simulate_folder) if there else None

    @property
    def energies(self) -> Energies:
        """Its reduced potentials with their weights."""
        return Energies(self.reduced_potential, self.potential_log_weights)

    def save(self, simulate_folder: Path) -> None:
        """Write ``reference/frames.npz`` and ``reference/result.json``, each whole or not at all.

        Args:
            simulate_folder: Of the simulation.
        """
        folder = simulate_folder / "reference"
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "result"}
        with atomic_path(folder / "frames.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        write_json(folder / "result.json", self.result)


def _unreadable(path: Path, got: object) -> InputError:
    return InputError(
        f"frames of the reference {path}",
        expected="the file as it was written",
        got=got,
        remedy="delete its stage's folder and run the stage again",
    )
