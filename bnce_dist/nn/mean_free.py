"""One molecule's atoms for models that work in flattened mean-free coordinates."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bnce_dist.core.mean_free import from_mean_free, to_mean_free, zero_sum_basis
from bnce_dist.nn.gvp import GVPVectorField


class MeanFreeMolecule(nn.Module):
    """The features of a molecule's atoms, and the way from coordinates to positions and back.

    The coordinates are those of ``CenteredCartesian``, ``(batch, 3 (atoms - 1))``.

    Args:
        node_features: ``(atoms, features)``.
    """

    node_features: Tensor
    basis: Tensor

    def __init__(self, node_features: Tensor) -> None:
        super().__init__()
        self.register_buffer("node_features", node_features, persistent=False)
        self.register_buffer("basis", zero_sum_basis(len(node_features)), persistent=False)

    def positions(self, z: Tensor) -> Tensor:
        """Return positions of mean zero, ``(batch, atoms, 3)``."""
        return from_mean_free(z, self.basis.to(z))

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Return the coordinates of a vector per atom; what moves the mean is projected out."""
        return to_mean_free(vectors, self.basis.to(vectors))


class MeanFreeVelocity(nn.Module):
    """A velocity field bound to a molecule: mean-free coordinates in and out.

    Args:
        field: The field; the coordinates take its unit of length.
        node_features: Features of the molecule's atoms, ``(atoms, features)``.
    """

    architecture: ClassVar[str] = "gvp"

    def __init__(self, field: GVPVectorField, node_features: Tensor) -> None:
        super().__init__()
        self.field = field
        self.molecule = MeanFreeMolecule(node_features)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config``, as plain types."""
        return {"node_features": self.molecule.node_features.tolist(), **self.field.config()}

    @classmethod
    def from_config(cls, node_features: list[list[float]], **field: Any) -> Self:
        """Return the architecture that ``config`` described, with initial weights."""
        return cls(GVPVectorField(len(node_features[0]), **field), torch.tensor(node_features))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, ``(batch, 3 (atoms - 1))``.

        Args:
            z: Points, ``(batch, 3 (atoms - 1))``.
            t: Times in (0, 1], ``(batch,)``.
        """
        velocity = self.field.velocity(self.molecule.positions(z), t, self.molecule.node_features)
        return self.molecule.coordinates(velocity)
