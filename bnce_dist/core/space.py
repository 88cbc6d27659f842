"""The space that the models of a molecule, or of a planar system, live in."""

from dataclasses import dataclass

NodeFeatures = list[list[float]]
"""What tells a molecule's atoms apart where coordinates are Cartesian, one list per atom."""


@dataclass(frozen=True)
class Space:
    """Vectors with coordinates on the real line first and angles after them.

    Args:
        num_euclidean: Coordinates on the real line.
        num_circular: Angles.
        node_features: Of the molecule's atoms if, and only if, the coordinates are Cartesian.
    """

    num_euclidean: int
    num_circular: int = 0
    node_features: NodeFeatures | None = None

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
