"""The models that come with the package."""

from pathlib import Path

import torch

from bnce_dist.core.errors import InputError
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator

FOLDER = Path(__file__).parents[1] / "models"


def shipped_sequences() -> list[str]:
    """Return the molecules whose models come with the package."""
    return sorted(path.stem.upper() for path in FOLDER.glob("*.pt"))


def load_shipped(sequence: str, *, device: str | torch.device = "cpu") -> BoltzmannGenerator:
    """Return the shipped model of a molecule.

    Args:
        sequence: Of the molecule.
        device: Where it will compute: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises: InputError: there is none, or no such device.
    """
    path = FOLDER / f"{sequence.strip().lower()}.pt"
    if not path.exists():
        raise InputError(
            "--sequence",
            expected=f"a shipped molecule ({', '.join(shipped_sequences())})",
            got=repr(sequence),
            remedy=f"train one with `bnce train target.sequence={sequence}` and give its --model",
        )
    return BoltzmannGenerator.load(path, device=device)
