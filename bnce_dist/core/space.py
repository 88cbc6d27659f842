"""The space that the models of a molecule, or of a planar system, live in."""

from dataclasses import dataclass
from typing import TypedDict

NodeFeatures = list[list[float]]
"""What tells a molecule's atoms apart where coordinates are Cartesian, one list per atom."""


class Tokens(TypedDict):
    """A molecule as one token per atom, in plain types: what many molecules' models see of it."""

    features: NodeFeatures
    """What tells the atoms apart, one list per atom."""
    relations: list[list[int]]
    """How each atom (row) is related to each other one, as a number below `NUM_RELATIONS`."""
    slots: list[list[int]]
    """Where in a vector the coordinates that place each atom stand: its bond, its angle and its
    torsion, the latter in the third place if it is stiff, in the fourth if it is free; -1 for what
    it does not have."""


NUM_SLOTS = 4
"""Coordinates a token can have."""
MAX_GRAPH_DISTANCE = 8
"""Bonds from one atom to another beyond which all distances are alike."""
NUM_RELATIONS = MAX_GRAPH_DISTANCE + 1 + 3
"""Distances in the graph, and instead of them the three roles of atoms that place another."""


def num_stiff_of(tokens: Tokens) -> int:
    """Return the size of the Euclidean block of a molecule's vectors."""
    return sum(column >= 0 for *stiff, _ in tokens["slots"] for column in stiff)


@dataclass(frozen=True)
class Space:
    """Vectors with coordinates on the real line first and angles after them.

    Args:
        num_euclidean: Coordinates on the real line.
        num_circular: Angles.
        node_features: Of the molecule's atoms if, and only if, the coordinates are Cartesian.
        tokens: Of the molecule's atoms if its models are made for many molecules.
    """

    num_euclidean: int
    num_circular: int = 0
    node_features: NodeFeatures | None = None
    tokens: Tokens | None = None

    @classmethod
    def of_atoms(cls, node_features: NodeFeatures) -> "Space":
        """Return the mean-free Cartesian coordinates of atoms with these features."""
        return cls(3 * (len(node_features) - 1), node_features=node_features)

    @property
    def is_cartesian(self) -> bool:
        """Whether vectors are positions of atoms, flattened."""
        return self.node_features is not None

    @property
    def dim(self) -> int:
        """Number of coordinates of both kinds."""
        return self.num_euclidean + self.num_circular
