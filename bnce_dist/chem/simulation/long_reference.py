"""The long, committed reference free energies, by the system they belong to."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnce_dist.chem.state import State
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json

SCHEMA_VERSION = 1
FOLDER = Path(__file__).parent / "references"


@dataclass(frozen=True)
class LongReference:
    """A converged simulation's free-energy difference and the system it is of.

    Args:
        name: Sequence of the molecule, for the reader.
        molecule: Identity of the molecule (``Molecule.identity``).
        force_field: OpenMM force-field files.
        temperature_kelvin: Bath temperature [K].
        state_phi: Interval of phi that is the state [rad].
        delta_f_kT: f(state) - f(rest) [kT].
        stderr_kT: Its standard error [kT].
        source: The committed record it is from, relative to the repository.
    """

    name: str
    molecule: str
    force_field: tuple[str, ...]
    temperature_kelvin: float
    state_phi: tuple[float, float]
    delta_f_kT: float
    stderr_kT: float
    source: str

    @classmethod
    def read(cls, path: Path) -> "LongReference":
        """Read one file.

        Raises: InputError: not a file of this schema.
        """
        content = read_json(path)
        names = {field.name for field in dataclasses.fields(cls)}
        if content.get("schema_version") != SCHEMA_VERSION or content.keys() != names | {
            "schema_version"
        }:
            raise InputError(
                f"reference {path}",
                expected=f"schema_version {SCHEMA_VERSION} and {sorted(names)}",
                got=sorted(content),
                remedy="restore the file from the repository",
            )
        lists = {name: tuple(content[name]) for name in ("force_field", "state_phi")}
        return cls(**{name: content[name] for name in names} | lists)


def find_long_reference(
    molecule: str,
    force_field: Sequence[str],
    temperature_kelvin: float,
    state: State,
    folder: Path = FOLDER,
) -> LongReference | None:
    """Return the committed reference of exactly this system and state, if there is one.

    Args:
        molecule: Identity of the molecule (``Molecule.identity``).
        force_field: OpenMM force-field files.
        temperature_kelvin: Bath temperature [K].
        state: Of the run; the references are of intervals of phi.
        folder: Where the references lie, one JSON file each.
    """
    system = (molecule, tuple(force_field), temperature_kelvin, state.interval)
    for reference in map(LongReference.read, sorted(folder.glob("*.json"))):
        if system == (
            reference.molecule,
            reference.force_field,
            reference.temperature_kelvin,
            reference.state_phi,
        ):
            return reference
    return None
