"""Coordinates a model can live in: whitened internal ones, or centred Cartesian ones."""

from typing import Any

from bnce_dist.chem.coordinates.base import Coordinates
from bnce_dist.chem.coordinates.cartesian import CenteredCartesian
from bnce_dist.chem.coordinates.internal import WhitenedInternal
from bnce_dist.chem.coordinates.zmatrix import ZMatrix
from bnce_dist.core.errors import InputError

__all__ = ["CenteredCartesian", "Coordinates", "WhitenedInternal", "ZMatrix", "from_state"]

_KINDS: dict[str, type[Coordinates]] = {
    kind.__name__: kind for kind in (CenteredCartesian, WhitenedInternal)
}


def from_state(state: dict[str, Any]) -> Coordinates:
    """Return the coordinates that :meth:`Coordinates.to_state` described, of whatever kind.

    Raises: InputError: a kind that does not exist.
    """
    kind = state.get("kind")
    if kind not in _KINDS:
        raise InputError(
            "kind of coordinates",
            expected=f"one of {sorted(_KINDS)}",
            got=kind,
            remedy="load a state written by to_state, with this version or a newer one",
        )
    return _KINDS[kind].from_state(state)
