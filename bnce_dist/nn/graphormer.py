"""Attention biased by distances: the published architecture of molecular energy models."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.nn.blocks import ResidualMLP
from bnce_dist.nn.conformation import RadialBasis, checked_atoms, dense_edges, require_memory
from bnce_dist.nn.fusion import EarlyFusion
from bnce_dist.nn.mean_free import MeanFreeMolecule

_CHANNELS_PER_HEAD = 8
"""The published model has 32 heads on 256 channels."""


class BiasedAttention(nn.Module):
    """Multi-head self-attention with a bias per pair, written out.

    The fused kernels have no second derivative on CPUs, and a score is trained through two.

    Args:
        width: Channels of an atom.
        num_heads: Heads; they divide the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projections = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return ``(batch, atoms, width)`` for a bias ``(batch, heads, atoms, atoms)``."""
        heads = self.projections(hidden).unflatten(2, (3, self.num_heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)
        logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + bias
        attended = logits.softmax(-1) @ value
        return self.output(attended.transpose(1, 2).flatten(2))


class GraphormerLayer(nn.Module):
    """Attention and a two-layer network, each on the layer norm of its input, each added to it.

    Args:
        width: Channels of an atom.
        num_heads: Heads of the attention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = BiasedAttention(width, num_heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return ``(batch, atoms, width)`` for a bias ``(batch, heads, atoms, atoms)``."""
        hidden = hidden + self.attention(self.attention_norm(hidden), bias)
        return hidden + self.feed_forward(hidden)


class Graphormer(nn.Module):
    """An invariant scalar of a conformation and a time.

    Args:
        num_node_features: Features of an atom.
        width: Channels of an atom.
        depth: Layers.
        num_heads: Heads of the attention; they divide the width.
        num_radial: Radial basis functions.
        max_distance: Centre of the last of them, in the units of the positions.

    Source: Shi et al. (2022), arXiv 2203.04810; sizes of BoltzNCE, arXiv 2507.00846.
    """

    def __init__(
        self,
        num_node_features: int,
        *,
        width: int,
        depth: int,
        num_heads: int,
        num_radial: int,
        max_distance: float,
    ) -> None:
        super().__init__()
        self.num_node_features = num_node_features
        # What a layer keeps per pair of atoms for two derivatives, and the edges' own features.
        self.numbers_per_edge = 4 * (num_heads * depth + num_radial)
        self.radial = RadialBasis(num_radial, max_distance)
        self.atom_embedding = nn.Linear(num_node_features, width)
        self.distance_embedding = nn.Linear(num_radial, width)
        self.time_embedding = ResidualMLP(1, width, 1, width)
        self.bias = ResidualMLP(num_radial, num_radial, 1, num_heads)
        self.layers = nn.ModuleList(GraphormerLayer(width, num_heads) for _ in range(depth))
        self.output_norm = nn.LayerNorm(width)
        self.output = ResidualMLP(width, width, 1, 1, output_bias=False)

    def forward(
        self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the scalar, ``(batch,)``.

        Args:
            positions: ``(batch, atoms, 3)``.
            t: Times in [0, 1], ``(batch,)``.
            node_features: ``(atoms, features)``, or ``(batch, atoms, features)``.
            mask: Which atoms are real, ``(batch, atoms)``; all if absent.

        Raises: InputError: shapes that do not belong together, or too little memory.
        """
        require_memory(positions, self.numbers_per_edge)
        features, mask = checked_atoms(positions, node_features, mask, self.num_node_features)
        edges = dense_edges(positions, mask)
        radial = self.radial(edges.distance)
        surroundings = (radial * edges.weight[..., None]).sum(2)
        hidden = (
            self.atom_embedding(features)
            + self.distance_embedding(surroundings)
            + self.time_embedding(t.to(positions)[:, None])[:, None]
        )
        bias = self.bias(radial).movedim(-1, 1)
        bias = bias.masked_fill(mask[:, None, None, :] == 0, -torch.inf)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return (self.output(self.output_norm(hidden))[..., 0] * mask).sum(1)


class GraphormerEnergy(EarlyFusion):
    r"""Early fusion (see ``EarlyFusion``) of a conformation of one molecule and a time.

    .. math:: U_t(z) = N(z, t) - \frac{|z|^2}{2(\alpha^2(t) + \sigma^2(t))}

    The last term is exact for standard normal data. Points are flattened mean-free coordinates,
    as ``CenteredCartesian`` makes them. The defaults are the published sizes.

    Args:
        node_features: Features of the molecule's atoms, one list per atom.
        interpolant: Name of the path's interpolant.
        width: Channels of an atom.
        depth: Layers.
        num_heads: Heads of the attention; they divide the width. By default as wide as published.
        num_radial: Radial basis functions.
        max_distance: Centre of the last of them, in the scale of the points.

    Raises: InputError: no number of heads, and a width that published heads do not divide.
    """

    architecture: ClassVar[str] = "graphormer"

    def __init__(
        self,
        node_features: list[list[float]],
        *,
        interpolant: str = "trigonometric",
        width: int = 256,
        depth: int = 8,
        num_heads: int | None = None,
        num_radial: int = 50,
        max_distance: float = 8.0,
    ) -> None:
        super().__init__()
        if num_heads is None:
            num_heads = self._config["num_heads"] = _published_heads(width)
        self.interpolant = interpolant_from_name(interpolant)
        self.network = Graphormer(
            len(node_features[0]),
            width=width,
            depth=depth,
            num_heads=num_heads,
            num_radial=num_radial,
            max_distance=max_distance,
        )
        self.molecule = MeanFreeMolecule(torch.tensor(node_features))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)`` (see ``EnergyModel.forward``)."""
        variance = self.interpolant.alpha(t).square() + self.interpolant.sigma(t).square()
        network = self.network(self.molecule.positions(z), t, self.molecule.node_features)
        return network.to(z.dtype) - 0.5 * z.square().sum(1) / variance


def _published_heads(width: int) -> int:
    if width % _CHANNELS_PER_HEAD:
        raise InputError(
            "width of a graphormer",
            expected=f"a multiple of {_CHANNELS_PER_HEAD}, the channels of a head",
            got=width,
            remedy="change energy.width",
        )
    return width // _CHANNELS_PER_HEAD
