"""The energy model of the pipeline: internal coordinates, many times for the price of one."""

from typing import ClassVar

from torch import Tensor

from bnce_dist.nn.blocks import PositionFeatures, ResidualMLP
from bnce_dist.nn.fusion import LateFusion


class LateFusionEnergy(LateFusion):
    """Late fusion (see ``LateFusion``) with a residual MLP over coordinates and angles.

    Args:
        num_euclidean: Size of the Euclidean block.
        num_circular: Number of angles.
        interpolant: Name of the path's Euclidean interpolant.
        width: Hidden features of ``f``.
        depth: Residual blocks of ``f``.
        num_features: Outputs of ``f``.
        num_harmonics: Harmonics of every angle that the network sees.
        num_fourier: Random Fourier features of the Euclidean block.
        fourier_scale: Standard deviation of their frequencies.
        time_width: Hidden features of ``g``.
        time_depth: Residual blocks of ``g``.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding; best that of the objective.
    """

    architecture: ClassVar[str] = "late_fusion"

    def __init__(
        self,
        num_euclidean: int,
        num_circular: int = 0,
        *,
        interpolant: str = "trigonometric",
        width: int = 256,
        depth: int = 4,
        num_features: int = 128,
        num_harmonics: int = 4,
        num_fourier: int = 0,
        fourier_scale: float = 1.0,
        time_width: int = 128,
        time_depth: int = 1,
        num_time_frequencies: int = 16,
        time_exponent: float = 2.5,
    ) -> None:
        position = PositionFeatures(
            num_euclidean, num_circular, num_harmonics, num_fourier, fourier_scale
        )
        super().__init__(
            ResidualMLP(position.num_features, width, depth, num_features),
            num_euclidean,
            interpolant=interpolant,
            num_features=num_features,
            time_width=time_width,
            time_depth=time_depth,
            num_time_frequencies=num_time_frequencies,
            time_exponent=time_exponent,
        )
        self.position = position

    def position_features(self, z: Tensor) -> Tensor:
        """Return ``f(z)``, ``(batch, num_features)``."""
        return self.position_network(self.position(z))
