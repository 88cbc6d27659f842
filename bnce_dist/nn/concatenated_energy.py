"""The energy model that was published with the hybrid objective, for two dimensions."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bnce_dist.nn.blocks import LearnableSwish, PositionFeatures
from bnce_dist.nn.fusion import EarlyFusion


class ConcatenatedEnergy(EarlyFusion):
    r"""Energy of a residual network that sees time as one more coordinate.

    .. math:: h_0 = \phi(W_0 [z, t]), \quad h_{k+1} = h_k + \phi(W_k h_k), \quad
              U_t(z) = w \cdot h_K

    Every pair of a point and a time costs a pass through the network, so contrasting a point
    with many times is expensive. The published output bias is left out: it would shift ``U`` by
    a constant, which no objective sees.

    Args:
        num_euclidean: Size of the Euclidean block.
        num_circular: Number of angles.
        width: Hidden features.
        depth: Residual layers, ``K``.
        num_harmonics: Harmonics of every angle that the network sees.
        num_fourier: Random Fourier features of the Euclidean block.
        fourier_scale: Standard deviation of their frequencies.

    Source: BoltzNCE, arXiv:2507.00846, planar systems (width 256, depth 6).
    """

    architecture: ClassVar[str] = "concatenated"

    def __init__(
        self,
        num_euclidean: int,
        num_circular: int = 0,
        *,
        width: int = 256,
        depth: int = 6,
        num_harmonics: int = 4,
        num_fourier: int = 0,
        fourier_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.position = PositionFeatures(
            num_euclidean, num_circular, num_harmonics, num_fourier, fourier_scale
        )
        num_inputs = self.position.num_features + 1
        self.input = nn.Sequential(nn.Linear(num_inputs, width), LearnableSwish())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), LearnableSwish()) for _ in range(depth)
        )
        self.output = nn.Linear(width, 1, bias=False)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)`` (see ``EnergyModel.forward``)."""
        hidden = self.input(torch.cat([self.position(z), t[:, None]], dim=1))
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.output(hidden)[:, 0]
