"""Velocity fields on the product of a Euclidean block and a torus."""

from typing import ClassVar

import torch
from torch import Tensor

from bnce_dist.core.interpolant import CircularInterpolant
from bnce_dist.nn.blocks import PositionFeatures, ResidualMLP, TimeEmbedding
from bnce_dist.nn.rebuildable import Rebuildable


class InternalVelocity(Rebuildable):
    r"""Residual MLP over whitened internal coordinates and angles.

    The angles' velocity is :math:`\dot\sigma(t) E[\epsilon|z_t]`; the network predicts the noise
    and is multiplied by :math:`\dot\sigma`, so that every network output is of order one.

    Args:
        num_euclidean: Size of the Euclidean block.
        num_circular: Number of angles.
        circular_scale: ``scale`` of the path's circular interpolant [rad].
        circular_power: ``power`` of the path's circular interpolant.
        width: Hidden features.
        depth: Number of residual blocks.
        num_harmonics: Harmonics of every angle that the network sees.
        num_fourier: Random Fourier features of the Euclidean block.
        fourier_scale: Standard deviation of their frequencies.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding (see ``TimeEmbedding``).
    """

    architecture: ClassVar[str] = "internal"

    def __init__(
        self,
        num_euclidean: int,
        num_circular: int = 0,
        *,
        circular_scale: float = 4.0,
        circular_power: float = 1.5,
        width: int = 256,
        depth: int = 4,
        num_harmonics: int = 4,
        num_fourier: int = 0,
        fourier_scale: float = 1.0,
        num_time_frequencies: int = 16,
        time_exponent: float = 2.0,
    ) -> None:
        super().__init__()
        self.num_euclidean = num_euclidean
        self.circular = CircularInterpolant(circular_scale, circular_power)
        self.position = PositionFeatures(
            num_euclidean, num_circular, num_harmonics, num_fourier, fourier_scale
        )
        self.time = TimeEmbedding(num_time_frequencies, time_exponent)
        num_inputs = self.position.num_features + self.time.num_features
        self.network = ResidualMLP(num_inputs, width, depth, num_euclidean + num_circular)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the velocity.

        Args:
            z: Points, ``(batch, dim)``.
            t: Times in [0, 1], ``(batch,)``.

        Returns: ``(batch, dim)``.
        """
        outputs = self.network(torch.cat([self.position(z), self.time(t)], dim=1))
        euclidean, noise = outputs[:, : self.num_euclidean], outputs[:, self.num_euclidean :]
        return torch.cat([euclidean, self.circular.sigma_dot(t)[:, None] * noise], dim=1)
