"""Flow matching of several molecules in internal coordinates in one batch."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from bnce_dist.core.interpolant import Interpolant
from bnce_dist.core.objectives import FlowMatching
from bnce_dist.core.padded_tokens import PaddedTokens, flattened, points_of
from bnce_dist.core.space import Tokens


class PointVelocity(Protocol):
    """What ``TokenFlowMatching`` needs of a model (see ``nn.tokens.TokenField``)."""

    def velocity(
        self, points: Tensor, t: Tensor, features: Tensor, relations: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the velocities, ``(batch, atoms, 4)``."""
        ...


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

    def __init__(
        self,
        velocity_field: nn.Module,
        interpolant: Interpolant,
        tokens: Sequence[Tokens],
        *,
        time_exponent: float = 1.0,
    ) -> None:
        molecules = PaddedTokens(tokens)
        super().__init__(velocity_field, molecules.path(interpolant), time_exponent)
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
        batch = self.molecules.of(molecule)
        x_t = self.path.interpolate(x_data, x_noise, t) * batch.present
        field: PointVelocity = self.velocity_field  # type: ignore[assignment]
        velocity = field.velocity(points_of(x_t), t, batch.features, batch.relations, batch.mask)
        target = self.path.velocity_target(x_data, x_noise, t)
        error = (flattened(velocity) - target) / self.path.velocity_scale(t)
        squared = (error * batch.present).square().sum(1)
        return {"loss": (squared / batch.present.sum(1)).mean()}
