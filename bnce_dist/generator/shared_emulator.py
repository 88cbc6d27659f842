"""What draws samples of molecules that nobody simulated: one flow in internal coordinates."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import StiffTypes
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.potentials.rest import RestValues, rest_values
from bnce_dist.core.errors import as_input_error
from bnce_dist.data.torch_file import write_torch
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.model_file import SCHEMA_VERSION, load_state, unusable
from bnce_dist.generator.target import Target
from bnce_dist.nn.tokens import TokenField, TokenVelocity


@dataclass(frozen=True)
class SharedEmulator:
    """A field of many molecules and the types by which their stiff coordinates are whitened.

    Args:
        types: Measured on the molecules that it learned from.
        field: The trained flow.
        training_molecules: Sequences of what it learned from.
        history: Of its training, as in ``history.json``.
        num_ode_steps: Midpoint steps from noise to data.
        ode_time_exponent: Above 1 the steps shorten towards the data.
        interpolant: Name of the path's Euclidean interpolant.
    """

    kind: ClassVar[str] = "shared_emulator"

    types: StiffTypes
    field: TokenField
    training_molecules: tuple[str, ...]
    history: list[dict[str, float]]
    num_ode_steps: int
    ode_time_exponent: float
    interpolant: str = "trigonometric"

    def of_molecule(self, target: Target) -> tuple[Emulator, tuple[str, ...]]:
        """Return the emulator of a molecule, and the types of its coordinates that are new to it.

        Args:
            target: With the molecule and the force field, which stands in for what is new.

        Raises: InputError: a residue or an atom that no peptide has, or something new of which the
            force field does not say where it rests.
        """
        force_field = target.force_field
        known = rest_values(force_field) if isinstance(force_field, ForceField) else {}
        return self.bound_to(target.molecule, known)

    def bound_to(self, molecule: Molecule, known: RestValues) -> tuple[Emulator, tuple[str, ...]]:
        """Return what `of_molecule` does, given rest values of what may be new."""
        coordinates, unknown = self.types.coordinates(molecule, known)
        tokens = tokens_of(molecule, coordinates.zmatrix)
        emulator = Emulator(
            molecule.identity,
            coordinates,
            TokenVelocity(self.field, tokens),
            self.num_ode_steps,
            self.ode_time_exponent,
            self.interpolant,
        )
        return emulator, unknown

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "types": self.types.to_state(),
            "model": self.field.config(),
            "weights": self.field.state_dict(),
            "training_molecules": list(self.training_molecules),
            "history": self.history,
            "settings": {
                "num_ode_steps": self.num_ode_steps,
                "ode_time_exponent": self.ode_time_exponent,
                "interpolant": self.interpolant,
            },
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return what `to_state` described."""
        field = TokenField(**state["model"])
        field.load_state_dict(state["weights"])
        return cls(
            StiffTypes.from_state(state["types"]),
            field.eval(),
            tuple(state["training_molecules"]),
            state["history"],
            **state["settings"],
        )

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
