"""A light energy model of distances: invariant, cheap, many times for the price of one."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bnce_dist.nn.blocks import ResidualMLP
from bnce_dist.nn.conformation import RadialBasis, checked_atoms, dense_edges, require_memory
from bnce_dist.nn.fusion import LateFusion
from bnce_dist.nn.mean_free import MeanFreeMolecule


class DistanceNetwork(nn.Module):
    r"""Invariant features of a conformation, from messages filtered by distance.

    .. math:: m_i = \sum_{j \ne i} \sum_k \phi_k(d_{ij})\, A_k h_j

    The filter is linear in the radial basis :math:`\phi`, so the double sum is one matrix product
    and nothing of size pairs x channels is made.

    Args:
        num_node_features: Features of an atom.
        num_outputs: Features of a conformation.
        width: Channels of an atom.
        depth: Rounds of messages.
        num_radial: Radial basis functions.
        max_distance: Centre of the last of them, in the units of the positions.
    """

    def __init__(
        self,
        num_node_features: int,
        num_outputs: int,
        *,
        width: int,
        depth: int,
        num_radial: int,
        max_distance: float,
    ) -> None:
        super().__init__()
        self.num_node_features = num_node_features
        self.radial = RadialBasis(num_radial, max_distance)
        self.embedding = nn.Linear(num_node_features, width)
        self.filters = nn.ModuleList(nn.Linear(width, num_radial * width) for _ in range(depth))
        self.updates = nn.ModuleList(ResidualMLP(2 * width, width, 1, width) for _ in range(depth))
        self.output = ResidualMLP(width, 2 * width, 1, num_outputs)

    def forward(
        self, positions: Tensor, node_features: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the features, ``(batch, num_outputs)``.

        Args:
            positions: ``(batch, atoms, 3)``.
            node_features: ``(atoms, features)``, or ``(batch, atoms, features)``.
            mask: Which atoms are real, ``(batch, atoms)``; all if absent.

        Raises: InputError: shapes that do not belong together, or too little memory.
        """
        require_memory(positions, 8 * self.radial.num_features)
        features, mask = checked_atoms(positions, node_features, mask, self.num_node_features)
        edges = dense_edges(positions, mask)
        # (batch, receivers, senders x radial), to be multiplied with (senders x radial, channels).
        radial = (self.radial(edges.distance) * edges.weight[..., None]).flatten(2)
        hidden = self.embedding(features)
        for filters, update in zip(self.filters, self.updates, strict=True):
            sent = filters(hidden).unflatten(2, (self.radial.num_features, -1)).flatten(1, 2)
            hidden = hidden + update(torch.cat([hidden, radial @ sent], dim=2))
        return self.output((hidden * mask[..., None]).sum(1))


class DistanceEnergy(LateFusion):
    """Late fusion (see ``LateFusion``) over the distances within one molecule.

    Points are flattened mean-free coordinates, as ``CenteredCartesian`` makes them.

    Args:
        node_features: Features of the molecule's atoms, one list per atom.
        interpolant: Name of the path's interpolant.
        width: Channels of an atom.
        depth: Rounds of messages.
        num_features: Features of a conformation.
        num_radial: Radial basis functions.
        max_distance: Centre of the last of them, in the scale of the points.
        time_width: Hidden features of the network of time.
        time_depth: Its residual blocks.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding; best that of the objective.
    """

    architecture: ClassVar[str] = "distance"

    def __init__(
        self,
        node_features: list[list[float]],
        *,
        interpolant: str = "trigonometric",
        width: int = 64,
        depth: int = 3,
        num_features: int = 128,
        num_radial: int = 32,
        max_distance: float = 8.0,
        time_width: int = 128,
        time_depth: int = 1,
        num_time_frequencies: int = 16,
        time_exponent: float = 2.5,
    ) -> None:
        network = DistanceNetwork(
            len(node_features[0]),
            num_features,
            width=width,
            depth=depth,
            num_radial=num_radial,
            max_distance=max_distance,
        )
        super().__init__(
            network,
            3 * (len(node_features) - 1),
            interpolant=interpolant,
            num_features=num_features,
            time_width=time_width,
            time_depth=time_depth,
            num_time_frequencies=num_time_frequencies,
            time_exponent=time_exponent,
        )
        self.molecule = MeanFreeMolecule(torch.tensor(node_features))

    def position_features(self, z: Tensor) -> Tensor:
        """Return the features of conformations, ``(batch, num_features)``."""
        return self.position_network(self.molecule.positions(z), self.molecule.node_features)
