"""Building blocks whose second derivatives exist, so that a score can be trained through them."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class LearnableSwish(nn.Module):
    r"""The activation :math:`x\, \mathrm{sigmoid}(\beta x)` with one learnable ``beta``."""

    def __init__(self) -> None:
        super().__init__()
        # Not a number without dimensions, which sharding and DeepSpeed refuse.
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of every entry."""
        return x * torch.sigmoid(self.beta * x)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # The pretrained files, and ours of earlier versions, hold a number.
        if f"{prefix}beta" in state_dict:
            state_dict[f"{prefix}beta"] = state_dict[f"{prefix}beta"].view(1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class TimeEmbedding(nn.Module):
    r"""Cosines of a warped time, fine where the marginals change fastest (at the data).

    .. math:: u = t^{1/\gamma}, \quad [u, \cos \pi u, \dots, \cos K \pi u]

    Args:
        num_frequencies: ``K``.
        time_exponent: ``gamma``; best equal to the exponent the objective draws times with.
    """

    frequencies: Tensor

    def __init__(self, num_frequencies: int, time_exponent: float) -> None:
        super().__init__()
        self.time_exponent = time_exponent
        self.num_features = num_frequencies + 1
        frequencies = math.pi * torch.arange(1, num_frequencies + 1)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Return ``(times, num_features)`` for times in [0, 1], ``(times,)``."""
        warped = t[:, None] ** (1 / self.time_exponent)
        return torch.cat([warped, torch.cos(self.frequencies * warped)], dim=1)


class PositionFeatures(nn.Module):
    """What a network sees of a point: coordinates, harmonics of angles, random Fourier features.

    Args:
        num_euclidean: Size of the Euclidean block.
        num_circular: Number of angles.
        num_harmonics: Sines and cosines of ``1 ... num_harmonics`` times every angle.
        num_fourier: Random frequencies in the Euclidean block (a sine and a cosine each).
        fourier_scale: Standard deviation of these frequencies; the inverse of the length scale
            that has to be resolved.
    """

    harmonics: Tensor
    frequencies: Tensor

    def __init__(
        self,
        num_euclidean: int,
        num_circular: int,
        num_harmonics: int,
        num_fourier: int = 0,
        fourier_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_euclidean = num_euclidean
        self.num_features = num_euclidean + 2 * num_circular * num_harmonics + 2 * num_fourier
        self.register_buffer("harmonics", torch.arange(1.0, num_harmonics + 1), persistent=False)
        self.register_buffer("frequencies", fourier_scale * torch.randn(num_euclidean, num_fourier))

    def forward(self, z: Tensor) -> Tensor:
        """Return ``(batch, num_features)`` for points ``(batch, dim)``."""
        euclidean, angles = z[:, : self.num_euclidean], z[:, self.num_euclidean :]
        multiples = (angles[:, :, None] * self.harmonics).flatten(1)
        phases = torch.cat([multiples, euclidean @ self.frequencies], dim=1)
        return torch.cat([euclidean, torch.sin(phases), torch.cos(phases)], dim=1)


class ResidualMLP(nn.Module):
    """Two-layer residual blocks between two linear maps, with SiLU activations.

    Args:
        num_inputs: Input features.
        width: Hidden features.
        depth: Number of residual blocks.
        num_outputs: Output features.
        output_bias: Whether the last map has a bias.
    """

    def __init__(
        self, num_inputs: int, width: int, depth: int, num_outputs: int, output_bias: bool = True
    ) -> None:
        super().__init__()
        self.input = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.output = nn.Sequential(nn.SiLU(), nn.Linear(width, num_outputs, bias=output_bias))

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(batch, num_outputs)`` for ``(batch, num_inputs)``."""
        hidden = self.input(features)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.output(hidden)
