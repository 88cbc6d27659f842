"""The trained models that come with the package."""

from pathlib import Path

from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.boltzmann_generator import BoltzmannGenerator

FOLDER = Path(__file__).parents[1] / "models"


def load_shipped(sequence: str) -> BoltzmannGenerator:
    """Return the shipped model of a molecule.

    Raises: InputError: there is none.
    """
    path = FOLDER / f"{sequence.strip().lower()}.pt"
    if not path.exists():
        known = sorted(path.stem.upper() for path in FOLDER.glob("*.pt"))
        raise InputError(
            "--sequence",
            expected=f"a molecule whose model comes with the package: {', '.join(known)}",
            got=repr(sequence),
            remedy=f"train one with `bnce train target.sequence={sequence}` and give its --model",
        )
    return BoltzmannGenerator.load(path)
