"""Several molecules in internal coordinates in one batch, padded to the largest.

A molecule's vector is laid out by its atoms: bond, angle and stiff torsion of each, ``3 atoms``
numbers, then the free torsion of each, ``atoms`` numbers, with zeros for what an atom has not.
So the path is that of one molecule, whichever molecules a batch holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bnce_dist.core.interpolant import Interpolant
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import NUM_SLOTS, Tokens


@dataclass(frozen=True)
class TokenBatch:
    """What a network is told of the molecules of a batch.

    Args:
        features: Of the tokens, ``(batch, atoms, features)``.
        relations: Of the tokens, ``(batch, atoms, atoms)``.
        mask: Which atoms are real, ``(batch, atoms)``, as 0 and 1.
        present: Which coordinates are, ``(batch, 4 atoms)``, as 0 and 1.
    """

    features: Tensor
    relations: Tensor
    mask: Tensor
    present: Tensor


class PaddedTokens(nn.Module):
    """The tokens of a list of molecules, from which batches are put together.

    Args:
        tokens: Of each molecule, in the order of the data.
    """

    features: Tensor
    relations: Tensor
    mask: Tensor
    present: Tensor

    def __init__(self, tokens: Sequence[Tokens]) -> None:
        super().__init__()
        self.max_atoms = max(len(one["slots"]) for one in tokens)
        features = [torch.tensor(one["features"]) for one in tokens]
        relations = torch.zeros(len(tokens), self.max_atoms, self.max_atoms, dtype=torch.long)
        for index, one in enumerate(tokens):
            own = torch.tensor(one["relations"])
            relations[index, : len(own), : len(own)] = own
        present = [(torch.tensor(one["slots"]) >= 0).float() for one in tokens]
        buffers = {
            "features": pad_sequence(features, batch_first=True),
            "relations": relations,
            "mask": pad_sequence([x.new_ones(len(x)) for x in features], batch_first=True),
            "present": flattened(pad_sequence(present, batch_first=True)),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def path(self, interpolant: Interpolant) -> ProductPath:
        """Return the path of laid out vectors."""
        return ProductPath(interpolant, (NUM_SLOTS - 1) * self.max_atoms, self.max_atoms)

    def of(self, molecule: Tensor) -> TokenBatch:
        """Return the tokens of a batch, given the index of each sample's molecule, ``(batch,)``."""
        return TokenBatch(
            self.features[molecule],
            self.relations[molecule],
            self.mask[molecule],
            self.present[molecule],
        )


def pack_vectors(vectors: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
    """Return vectors of several molecules as rows of one table.

    Args:
        vectors: Of each molecule, ``(samples, dim)``.
        tokens: Of each molecule.

    Returns: ``(samples of all, 1 + 4 max_atoms)``: the molecule's place in the list, then its
        vector laid out by atoms.
    """
    max_atoms = max(len(one["slots"]) for one in tokens)
    return torch.cat(
        [
            packed(z, one, index, max_atoms)
            for index, (z, one) in enumerate(zip(vectors, tokens, strict=True))
        ]
    )


def packed(z: Tensor, tokens: Tokens, index: int, max_atoms: int) -> Tensor:
    """Return vectors of one molecule as rows of the table of `pack_vectors`.

    Args:
        z: ``(samples, dim)``.
        tokens: Of the molecule.
        index: Its place in the list.
        max_atoms: Of the largest molecule of the list.

    Returns: ``(samples, 1 + 4 max_atoms)``.
    """
    slots = torch.tensor(tokens["slots"])
    rows = z.new_zeros(len(z), 1 + NUM_SLOTS * max_atoms)
    rows[:, 0] = index
    atoms, slot = (slots >= 0).nonzero().T
    rows[:, 1 + _column(atoms, slot, max_atoms)] = z[:, slots[atoms, slot]]
    return rows


def points_of(laid_out: Tensor) -> Tensor:
    """Return ``(batch, atoms, 4)`` of ``(batch, 4 atoms)``."""
    stiff, free = laid_out.split([num_stiff(laid_out), laid_out.shape[1] // NUM_SLOTS], dim=1)
    return torch.cat([stiff.unflatten(1, (-1, NUM_SLOTS - 1)), free[..., None]], dim=-1)


def flattened(points: Tensor) -> Tensor:
    """Return ``(batch, 4 atoms)`` of ``(batch, atoms, 4)``."""
    return torch.cat([points[..., :-1].flatten(1), points[..., -1]], dim=1)


def num_stiff(laid_out: Tensor) -> int:
    """Return the size of the Euclidean block of laid out vectors, ``(batch, 4 atoms)``."""
    return (NUM_SLOTS - 1) * (laid_out.shape[1] // NUM_SLOTS)


def _column(atoms: Tensor, slot: Tensor, max_atoms: int) -> Tensor:
    """Return the place of an atom's coordinate in the layout."""
    return torch.where(
        slot < NUM_SLOTS - 1,
        (NUM_SLOTS - 1) * atoms + slot,
        (NUM_SLOTS - 1) * max_atoms + atoms,
    )
