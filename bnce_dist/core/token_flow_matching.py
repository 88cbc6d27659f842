"""Flow matching of several molecules in internal coordinates, padded to the largest, in one batch.

A molecule's vector is laid out by its atoms: bond, angle and stiff torsion of each, ``3 atoms``
numbers, then the free torsion of each, ``atoms`` numbers, with zeros for what an atom has not.
So the path is that of one molecule, whichever molecules a batch holds.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bnce_dist.core.interpolant import Interpolant
from bnce_dist.core.objectives import FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import NUM_SLOTS, Tokens


class PointVelocity(Protocol):
    """What ``TokenFlowMatching`` needs of a model (see ``nn.tokens.TokenField``)."""

    def velocity(
        self, points: Tensor, t: Tensor, features: Tensor, relations: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the velocities, ``(batch, atoms, 4)``."""
        ...


def pack_vectors(vectors: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
    """Return vectors of several molecules as rows of one table.

    Args:
        vectors: Of each molecule, ``(samples, dim)``.
        tokens: Of each molecule.

    Returns: ``(samples of all, 1 + 4 max_atoms)``: the molecule's place in the list, then its
        vector laid out by atoms.
    """
    max_atoms = max(len(one["slots"]) for one in tokens)
    rows = []
    for index, (z, one) in enumerate(zip(vectors, tokens, strict=True)):
        slots = torch.tensor(one["slots"])
        table = z.new_zeros(len(z), 1 + NUM_SLOTS * max_atoms)
        table[:, 0] = index
        atoms, slot = (slots >= 0).nonzero().T
        table[:, 1 + _column(atoms, slot, max_atoms)] = z[:, slots[atoms, slot]]
        rows.append(table)
    return torch.cat(rows)


class TokenFlowMatching(FlowMatching):
    r"""Regression of the velocity on the path's time derivative, over the coordinates that exist.

    As ``FlowMatching``, with the mean over a molecule's own coordinates: every molecule weighs the
    same, whatever its size.

    Args:
        velocity_field: The model, with parameters.
        interpolant: Of the Euclidean coordinates.
        tokens: Of each molecule, in the order of the data.
        time_exponent: Times are ``u**time_exponent`` with ``u`` uniform.

    Raises: InputError: the time exponent is not positive.
    """

    shared: ClassVar[frozenset[str]] = frozenset()
    features: Tensor
    relations: Tensor
    mask: Tensor
    present: Tensor

    def __init__(
        self,
        velocity_field: nn.Module,
        interpolant: Interpolant,
        tokens: Sequence[Tokens],
        *,
        time_exponent: float = 1.0,
    ) -> None:
        max_atoms = max(len(one["slots"]) for one in tokens)
        path = ProductPath(interpolant, (NUM_SLOTS - 1) * max_atoms, max_atoms)
        super().__init__(velocity_field, path, time_exponent)
        features = [torch.tensor(one["features"]) for one in tokens]
        relations = torch.zeros(len(tokens), max_atoms, max_atoms, dtype=torch.long)
        for index, one in enumerate(tokens):
            own = torch.tensor(one["relations"])
            relations[index, : len(own), : len(own)] = own
        present = [(torch.tensor(one["slots"]) >= 0).float() for one in tokens]
        buffers = {
            "features": pad_sequence(features, batch_first=True),
            "relations": relations,
            "mask": pad_sequence([x.new_ones(len(x)) for x in features], batch_first=True),
            "present": _flattened(pad_sequence(present, batch_first=True)),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def draw(
        self,
        x_data: Tensor,
        generator: torch.Generator,
        common: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the arguments of ``forward`` for packed vectors.

        Args:
            x_data: Rows of ``pack_vectors``, ``(batch, 1 + 4 max_atoms)``.
            generator: Source of randomness.
            common: Not needed: the samples have nothing in common.
        """
        return {"molecule": x_data[:, 0].long(), **super().draw(x_data[:, 1:], generator)}

    def forward(  # type: ignore[override]
        self, molecule: Tensor, x_data: Tensor, x_noise: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean loss.

        Args:
            molecule: Index of each sample's molecule, ``(batch,)``.
            x_data: ``(batch, 4 max_atoms)``.
            x_noise: Standard normal, ``(batch, 4 max_atoms)``.
            t: ``(batch,)``, positive.
        """
        present = self.present[molecule]
        x_t = self.path.interpolate(x_data, x_noise, t) * present
        field: PointVelocity = self.velocity_field  # type: ignore[assignment]
        velocity = field.velocity(
            _points(x_t), t, self.features[molecule], self.relations[molecule], self.mask[molecule]
        )
        target = self.path.velocity_target(x_data, x_noise, t)
        error = (_flattened(velocity) - target) / self.path.velocity_scale(t)
        squared = (error * present).square().sum(1)
        return {"loss": (squared / present.sum(1)).mean()}


def _column(atoms: Tensor, slot: Tensor, max_atoms: int) -> Tensor:
    """Return the place of an atom's coordinate in the layout."""
    return torch.where(
        slot < NUM_SLOTS - 1,
        (NUM_SLOTS - 1) * atoms + slot,
        (NUM_SLOTS - 1) * max_atoms + atoms,
    )


def _points(laid_out: Tensor) -> Tensor:
    """Return ``(batch, atoms, 4)`` of ``(batch, 4 atoms)``."""
    num_atoms = laid_out.shape[1] // NUM_SLOTS
    stiff, free = laid_out.split([(NUM_SLOTS - 1) * num_atoms, num_atoms], dim=1)
    return torch.cat([stiff.unflatten(1, (num_atoms, -1)), free[..., None]], dim=-1)


def _flattened(points: Tensor) -> Tensor:
    """Return ``(batch, 4 atoms)`` of ``(batch, atoms, 4)``."""
    return torch.cat([points[..., :-1].flatten(1), points[..., -1]], dim=1)
