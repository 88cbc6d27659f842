"""Cartesian models of one molecule, in the coordinates that objectives and solvers work in."""

from torch import Tensor, nn

from bnce_dist.core.mean_free import from_mean_free, to_mean_free, zero_sum_basis
from bnce_dist.nn.gvp import GVPVectorField


class MeanFreeVelocity(nn.Module):
    """A velocity field bound to a molecule: vectors of the mean-free subspace in and out.

    What the field would move the centre of mass by is projected out. The coordinates are those
    of ``CenteredCartesian``, in the field's own unit of length.

    Args:
        field: The field.
        node_features: Features of the molecule's atoms, ``(atoms, features)``.
    """

    basis: Tensor
    node_features: Tensor

    def __init__(self, field: GVPVectorField, node_features: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("node_features", node_features)
        self.register_buffer("basis", zero_sum_basis(len(node_features)), persistent=False)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, ``(batch, 3 (atoms - 1))``.

        Args:
            z: Points, ``(batch, 3 (atoms - 1))``.
            t: Times in (0, 1], ``(batch,)``.
        """
        basis = self.basis.to(z)
        velocity = self.field.velocity(from_mean_free(z, basis), t, self.node_features)
        return to_mean_free(velocity, basis)
