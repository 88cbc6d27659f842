r"""A dense, equivariant velocity field of geometric vector perceptrons.

Every atom carries scalars ``(batch, atoms, scalars)`` and vectors ``(batch, atoms, 3, channels)``.
Edges are dense, ``(batch, receivers, senders)``; a mask takes the place of an edge list, so that
molecules of different sizes share a batch.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import interpolant_from_name, velocity_from_endpoint
from bnce_dist.nn.blocks import LearnableSwish
from bnce_dist.nn.conformation import (
    Edges,
    RadialBasis,
    checked_atoms,
    dense_edges,
    require_memory,
)
from bnce_dist.nn.neighbours import neighbour_list
from bnce_dist.nn.rebuildable import Rebuildable
from bnce_dist.nn.recomputing import Recomputing

_EPSILON = 1e-8
"""Squared norms are clamped here, which keeps all derivatives of the norm finite."""


class GVP(nn.Module):
    """Geometric vector perceptron with vector gating.

    Args:
        num_scalars: Scalars in and out.
        num_vectors_in: Vector channels in.
        num_vectors: Vector channels out.
        num_extra_scalars: Further scalars in.
        activation: Of the scalars.
        gate_activation: Of the gates, which multiply the vectors.
        unit_vectors: Whether vectors are normalised before they are gated.

    Source: Jing et al. (2021), algorithm 1, with the gates of Jing et al. (2021b).
    """

    def __init__(
        self,
        num_scalars: int,
        num_vectors_in: int,
        num_vectors: int,
        *,
        num_extra_scalars: int = 0,
        activation: nn.Module,
        gate_activation: nn.Module,
        unit_vectors: bool = False,
    ) -> None:
        super().__init__()
        num_hidden = max(num_vectors_in, num_vectors)
        self.hidden = nn.Parameter(_uniform(num_vectors_in, num_hidden))
        self.mixed = nn.Parameter(_uniform(num_hidden, num_vectors))
        self.scalars = nn.Linear(num_scalars + num_extra_scalars + num_hidden, num_scalars)
        self.activation = activation
        self.gate = nn.Linear(num_scalars, num_vectors)
        self.gate_activation = gate_activation
        self.unit_vectors = unit_vectors

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return new scalars, ``(..., scalars)``, and vectors, ``(..., 3, channels)``."""
        hidden = vectors @ self.hidden
        new = self.activation(self.scalars(torch.cat([scalars, _norm(hidden)], dim=-1)))
        mixed = hidden @ self.mixed
        if self.unit_vectors:
            mixed = mixed / _norm(mixed)[..., None, :]
        return new, self.gate_activation(self.gate(new))[..., None, :] * mixed


class Message(GVP):
    r"""The perceptron of all edges at once, summed over the senders, in factored form.

    Its input vectors are the edge's direction :math:`u_{ij}` and those of the sender, of which
    the hidden channels are :math:`u_{ij} w + a_j`. Nothing of size edges x channels x 3 is made:

    .. math:: |u_{ij} w + a_j|^2 = w^2 + 2 w\, u_{ij} \cdot a_j + |a_j|^2

    .. math:: \sum_j g_{ij} (u_{ij} w + a_j) W = \sum_j g_{ij} u_{ij} (w W) + \sum_j g_{ij} (a_j W)

    Args:
        num_scalars: Scalars in and out.
        num_vectors: Vector channels in and out.
        num_radial: Radial features of an edge.
    """

    activation: LearnableSwish

    def __init__(self, num_scalars: int, num_vectors: int, num_radial: int) -> None:
        super().__init__(
            num_scalars,
            num_vectors + 1,
            num_vectors,
            num_extra_scalars=num_radial,
            activation=LearnableSwish(),
            gate_activation=nn.Sigmoid(),
        )
        self.num_scalars = num_scalars

    def aggregate(
        self, scalars: Tensor, vectors: Tensor, radial: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of messages that every atom receives.

        Args:
            scalars: ``(batch, atoms, scalars)``.
            vectors: ``(batch, atoms, 3, channels)``.
            radial: Radial features, ``(batch, atoms, atoms, radial)``.
            edges: The edges.

        Returns: Scalars and vectors, of the shapes of the arguments.
        """
        along, carried = self.hidden[0], vectors @ self.hidden[1:]
        projection = torch.einsum("bijc,bjch->bijh", edges.direction, 2 * along * carried)
        squared = (along.square() + carried.square().sum(-2))[:, None] + projection
        features = torch.cat([radial, squared.clamp(min=_EPSILON).sqrt()], dim=-1)
        # swish(x) = silu(beta x) / beta, and both factors cost nothing on the weights' side.
        beta = self.activation.beta
        of_sender, of_edge = (beta * self.scalars.weight).split(
            [self.num_scalars, self.scalars.in_features - self.num_scalars], dim=1
        )
        sent = F.linear(scalars, of_sender, beta * self.scalars.bias)
        # In place: another tensor of this size costs more than what is done to it.
        message = F.linear(features, of_edge).add_(sent[:, None])
        message = F.silu(message, inplace=not torch.is_grad_enabled())
        gate = self.gate_activation(F.linear(message, self.gate.weight / beta, self.gate.bias))
        gate = gate * edges.weight[..., None]
        received = (edges.weight[:, :, None] @ message).squeeze(2) / beta
        directed = torch.einsum("bijo,bijc->bico", gate, edges.direction) * (along @ self.mixed)
        relayed = torch.einsum("bijo,bjco->bico", gate, carried @ self.mixed)
        return received, directed + relayed


class GVPNorm(nn.Module):
    """Layer norm of the scalars; vectors are divided by their root mean square norm."""

    def __init__(self, num_scalars: int) -> None:
        super().__init__()
        self.scalar_norm = nn.LayerNorm(num_scalars)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return both normalised, in their shapes."""
        mean_square = vectors.square().sum(-2).clamp(min=_EPSILON).mean(-1)
        scale = (mean_square + self.scalar_norm.eps).sqrt() + self.scalar_norm.eps
        return self.scalar_norm(scalars), vectors / scale[..., None, None]


class GVPLayer(nn.Module):
    """One round of messages, an update of every atom and a step of its position.

    Args:
        num_scalars: Scalars of an atom.
        num_vectors: Vector channels of an atom.
        radial: Radial basis of the distances.
        message_scale: Sums of messages are divided by it.
        step_size: Largest step of a position, in the units of the positions.
        radius: Messages come from within it; from all atoms if absent.
    """

    def __init__(
        self,
        num_scalars: int,
        num_vectors: int,
        radial: RadialBasis,
        message_scale: float,
        step_size: float,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        self.radial = radial
        self.radius = radius
        self.message_scale = message_scale
        self.step_size = step_size
        self.message = Message(num_scalars, num_vectors, radial.num_features)
        self.message_norm = GVPNorm(num_scalars)
        self.update = GVP(
            num_scalars,
            num_vectors,
            num_vectors,
            activation=LearnableSwish(),
            gate_activation=nn.Sigmoid(),
        )
        self.update_norm = GVPNorm(num_scalars)
        self.step = GVP(
            num_scalars,
            num_vectors,
            1,
            activation=nn.SiLU(),
            gate_activation=nn.Tanh(),
            unit_vectors=True,
        )

    def forward(
        self, scalars: Tensor, vectors: Tensor, positions: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return new scalars, vectors and positions, in the shapes of the arguments."""
        if self.radius is None:
            edges = dense_edges(positions, mask)
            received = self.message.aggregate(scalars, vectors, self.radial(edges.distance), edges)
        else:
            pairs = neighbour_list(positions, mask, self.radius)
            received = self.received_from(scalars, vectors, positions, *pairs)
        scaled = (sums / self.message_scale for sums in received)
        return self.updated(scalars, vectors, positions, *scaled)

    def received_from(
        self, scalars: Tensor, vectors: Tensor, positions: Tensor, receiver: Tensor, sender: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of the messages of a list of edges; see `Message.aggregate`."""
        atoms = positions.flatten(0, 1)
        difference = atoms[sender] - atoms[receiver]
        distance = _norm(difference[..., None])
        sent = self.message(
            torch.cat([scalars.flatten(0, 1)[sender], self.radial(distance.squeeze(1))], dim=1),
            torch.cat([(difference / distance)[..., None], vectors.flatten(0, 1)[sender]], dim=2),
        )
        sums = (
            torch.zeros_like(old).flatten(0, 1).index_add(0, receiver, new).view_as(old)
            for old, new in zip((scalars, vectors), sent, strict=True)
        )
        return next(sums), next(sums)

    def updated(
        self,
        scalars: Tensor,
        vectors: Tensor,
        positions: Tensor,
        scalar_messages: Tensor,
        vector_messages: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``forward`` does, for the scaled sums of messages every atom received."""
        scalars, vectors = self.message_norm(scalars + scalar_messages, vectors + vector_messages)
        scalar_change, vector_change = self.update(scalars, vectors)
        scalars, vectors = scalars + scalar_change, vectors + vector_change
        positions = positions + self.step_size * self.step(scalars, vectors)[1].squeeze(-1)
        return *self.update_norm(scalars, vectors), positions


class GVPVectorField(Rebuildable, Recomputing):
    r"""Equivariant field over the atoms of any molecule.

    Rotations and reflections of the positions rotate and reflect the output, translations do not
    change it, and atoms may come in any order. With the defaults this is the pretrained field of
    alanine dipeptide, in angstrom.

    Args:
        num_node_features: Features of an atom.
        parametrisation: Whether the output is the velocity or the endpoint
            :math:`E[x_{data}|x_t]`.
        interpolant: Name of the path's interpolant, which turns an endpoint into a velocity.
        num_layers: Rounds of messages.
        num_scalars: Scalars of an atom.
        num_vectors: Vector channels of an atom.
        num_radial: Radial basis functions of the distance.
        max_distance: Centre of the last of them, in the units of the positions.
        message_scale: Sums of messages are divided by it.
        step_size: Largest step of a position in a layer, in the units of the positions.
        radius: Messages come from within it, in the units of the positions, for molecules whose
            pairs of atoms are too many; from all atoms if absent. The output jumps a little
            where a pair of atoms crosses it.

    Raises: InputError: unknown parametrisation or interpolant.
    Source: Aggarwal et al. (2025), arXiv 2507.00846, appendix; Dunn & Koes (2024) for the layer.
    """

    def __init__(
        self,
        num_node_features: int,
        *,
        parametrisation: Literal["velocity", "endpoint"] = "velocity",
        interpolant: str = "linear",
        num_layers: int = 5,
        num_scalars: int = 64,
        num_vectors: int = 16,
        num_radial: int = 16,
        max_distance: float = 20.0,
        message_scale: float = 10.0,
        step_size: float = 10.0,
        radius: float | None = None,
    ) -> None:
        super().__init__()
        if parametrisation not in ("velocity", "endpoint"):
            raise InputError(
                "parametrisation",
                expected="velocity or endpoint",
                got=repr(parametrisation),
                remedy="correct the name",
            )
        self.parametrisation = parametrisation
        self.interpolant = interpolant_from_name(interpolant)
        self.num_node_features = num_node_features
        self.num_vectors = num_vectors
        self.radius = radius
        # A measured upper bound of what a layer keeps for the backward pass.
        self.numbers_per_edge = 4 * (num_scalars + 2 * num_vectors + num_radial)
        self.embedding = nn.Linear(num_node_features + 1, num_scalars)
        radial = RadialBasis(num_radial, max_distance)
        self.layers = nn.ModuleList(
            GVPLayer(num_scalars, num_vectors, radial, message_scale, step_size, radius)
            for _ in range(num_layers)
        )
        # Nothing reads the last positions, and parallel ranks would wait for these gradients.
        self.layers[-1].step.requires_grad_(False)
        self.output = GVP(
            num_scalars,
            num_vectors,
            1,
            activation=nn.SiLU(),
            gate_activation=nn.Identity(),
            unit_vectors=True,
        )

    def config(self) -> dict[str, Any]:
        """Return the arguments, besides the number of features, that rebuild this architecture."""
        return {k: value for k, value in self._config.items() if k != "num_node_features"}

    def forward(
        self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the network's output: the velocity or the endpoint, as it was made for.

        Args:
            positions: ``(batch, atoms, 3)``.
            t: Times in [0, 1], ``(batch,)``.
            node_features: ``(atoms, features)``, or ``(batch, atoms, features)``.
            mask: Which atoms are real, ``(batch, atoms)``; all if absent.

        Returns: ``(batch, atoms, 3)``, zero where there is no atom.
        Raises: InputError: shapes that do not belong together, or too little memory.
        """
        if self.radius is None:
            keeps_all = torch.is_grad_enabled() and not self.activation_checkpointing
            num_saved = len(self.layers) if keeps_all else 1
            require_memory(positions, num_saved * self.numbers_per_edge)
        features, mask = checked_atoms(positions, node_features, mask, self.num_node_features)
        times = t.to(positions)[:, None, None].expand(-1, positions.shape[1], 1)
        scalars = F.silu(self.embedding(torch.cat([features, times], dim=-1)))
        vectors = positions.new_zeros(*positions.shape, self.num_vectors)
        for layer in self.layers:
            scalars, vectors, positions = self.recomputed(layer, scalars, vectors, positions, mask)
        return self.output(scalars, vectors)[1].squeeze(-1) * mask[..., None]

    def velocity(
        self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the velocity, for positive times; arguments and shape as ``forward``."""
        output = self(positions, t, node_features, mask)
        if self.parametrisation == "velocity":
            return output
        return velocity_from_endpoint(
            self.interpolant, positions.flatten(1), output.flatten(1), t
        ).view_as(positions)


def _norm(vectors: Tensor) -> Tensor:
    """Return the norms of vectors ``(..., 3, channels)``, at least 1e-4."""
    return vectors.square().sum(-2).clamp(min=_EPSILON).sqrt()


def _uniform(num_in: int, num_out: int) -> Tensor:
    bound = num_in**-0.5
    return torch.empty(num_in, num_out).uniform_(-bound, bound)
