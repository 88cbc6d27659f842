"""The density of a shared emulator's samples of any molecule, as one energy model learned it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from bnce_dist.core.errors import as_input_error
from bnce_dist.data.torch_file import write_torch
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.model_file import SCHEMA_VERSION, load_state, unusable
from bnce_dist.nn.tokens import TokenEnergy


@dataclass(frozen=True)
class SharedDensity:
    """An energy model of many molecules.

    Args:
        energy_model: Bound to any of them: its weights belong to all.
        history: Of its training, as in ``history.json``.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "shared_energy"

    energy_model: TokenEnergy
    history: list[dict[str, float]]
    interpolant: str = "trigonometric"

    def of_molecule(self, emulator: Emulator) -> LearnedDensity:
        """Return the density of an emulator that the shared one was bound to a molecule as."""
        space = emulator.space
        assert space.tokens is not None
        energy_model = self.energy_model.of_molecule(space.tokens, space.num_euclidean)
        return LearnedDensity(
            emulator.molecule_identity, emulator.coordinates, energy_model.eval(), self.interpolant
        )

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "model": self.energy_model.config(),
            "weights": self.energy_model.state_dict(),
            "history": self.history,
            "settings": {"interpolant": self.interpolant},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `to_state` described."""
        energy_model = TokenEnergy(**state["model"])
        energy_model.load_state_dict(state["weights"])
        return cls(energy_model.eval(), state["history"], **state["settings"])

    def save(self, path: Path) -> None:
        """Write this to one file, atomically."""
        write_torch(path, self.to_state())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises: InputError: absent, torn, or of something else.
        """
        content = load_state(path, cls.kind)
        with as_input_error(partial(unusable, path)):
            return cls.from_state(content)
