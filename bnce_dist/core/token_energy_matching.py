"""Score matching and InfoNCE of several molecules in internal coordinates in one batch."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from bnce_dist.core.interpolant import Interpolant
from bnce_dist.core.objectives import EnergyMatching, EnergyModel
from bnce_dist.core.padded_tokens import PaddedTokens, TokenBatch
from bnce_dist.core.space import Tokens


class SharedEnergyModel(EnergyModel, Protocol):
    """What ``TokenEnergyMatching`` needs of a model (see ``nn.tokens.TokenEnergy``)."""

    def of_batch(self, batch: TokenBatch) -> EnergyModel:
        """Return the same energy for laid out vectors of a batch's molecules."""
        ...


class TokenEnergyMatching(EnergyMatching):
    """As ``EnergyMatching``, with the score's mean over a molecule's own coordinates.

    Args:
        energy_model: The model, with parameters.
        interpolant: Of the Euclidean coordinates.
        tokens: Of each molecule, in the order of the data.
        options: As for ``EnergyMatching``.

    Raises: InputError: as for ``EnergyMatching``.
    """

    energy_model: SharedEnergyModel

    def __init__(
        self,
        energy_model: SharedEnergyModel,
        interpolant: Interpolant,
        tokens: Sequence[Tokens],
        **options: Any,
    ) -> None:
        molecules = PaddedTokens(tokens)
        super().__init__(energy_model, molecules.path(interpolant), **options)
        self.molecules = molecules

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
            common: Source of what is ``shared`` (default: the same one).
        """
        return {"molecule": x_data[:, 0].long(), **super().draw(x_data[:, 1:], generator, common)}

    def forward(  # type: ignore[override]
        self, molecule: Tensor, x_data: Tensor, x_noise: Tensor, t: Tensor, negative_times: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted loss and its parts that have a weight.

        Args:
            molecule: Index of each sample's molecule, ``(batch,)``.
            x_data: ``(batch, 4 max_atoms)``.
            x_noise: Standard normal, ``(batch, 4 max_atoms)``.
            t: ``(batch,)``.
            negative_times: What ``negatives.draw`` returned; if not shared, these points' rows.
        """
        batch = self.molecules.of(molecule)
        x_t = self.path.interpolate(x_data, x_noise, t) * batch.present
        model = self.energy_model.of_batch(batch)
        return self._losses(model, x_t, x_noise, t, negative_times, batch.present)
