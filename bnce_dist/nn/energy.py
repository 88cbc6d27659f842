"""The energy model of the pipeline: many times for the price of one."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.nn.blocks import PositionFeatures, ResidualMLP, TimeEmbedding
from bnce_dist.nn.energy_model import EnergyModel


class LateFusionEnergy(EnergyModel):
    r"""Energy in which position and time meet only in an inner product.

    .. math:: U_t(z) = f(z) \cdot g(t) / \sqrt D + g_0(t)
                       - \frac{|z_e|^2}{2(\alpha^2(t) + \sigma^2(t))}

    ``f`` is evaluated once for any number of times, so contrasting a point with many times costs
    one matrix product. The last term is exact for standard normal data; the network learns the
    rest. ``g`` and ``g_0`` have no final bias: that of ``g_0`` would shift ``U`` by a constant,
    which no objective sees.

    Args:
        num_euclidean: Size of the Euclidean block.
        num_circular: Number of angles.
        interpolant: Name of the path's Euclidean interpolant.
        width: Hidden features of ``f``.
        depth: Residual blocks of ``f``.
        num_features: ``D``.
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
        super().__init__(
            num_euclidean=num_euclidean,
            num_circular=num_circular,
            interpolant=interpolant,
            width=width,
            depth=depth,
            num_features=num_features,
            num_harmonics=num_harmonics,
            num_fourier=num_fourier,
            fourier_scale=fourier_scale,
            time_width=time_width,
            time_depth=time_depth,
            num_time_frequencies=num_time_frequencies,
            time_exponent=time_exponent,
        )
        self.num_euclidean = num_euclidean
        self.feature_scale = 1 / math.sqrt(num_features)
        self.interpolant = interpolant_from_name(interpolant)
        self.position = PositionFeatures(
            num_euclidean, num_circular, num_harmonics, num_fourier, fourier_scale
        )
        self.time = TimeEmbedding(num_time_frequencies, time_exponent)
        self.position_network = ResidualMLP(self.position.num_features, width, depth, num_features)
        self.time_network = ResidualMLP(
            self.time.num_features, time_width, time_depth, num_features + 1, output_bias=False
        )

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)`` (see ``EnergyModel.forward``)."""
        return (self._position_factor(z) * self._time_factor(t)).sum(1)

    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        """Return ``U`` at several times, ``(batch, times)`` (see ``EnergyModel.at_times``)."""
        time = self._time_factor(times.flatten()).unflatten(0, times.shape)
        return _full_precision_product(self._position_factor(z), time)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``forward(z, t)`` and ``at_times(z, times)`` from one pass over the points."""
        position = self._position_factor(z)
        time = self._time_factor(torch.cat([t, times.flatten()]))
        own, others = time[: len(t)], time[len(t) :].unflatten(0, times.shape)
        return (position * own).sum(1), _full_precision_product(position, others)

    def _position_factor(self, z: Tensor) -> Tensor:
        features = self.feature_scale * self.position_network(self.position(z))
        squared_norm = z[:, : self.num_euclidean].square().sum(1, keepdim=True)
        return torch.cat(
            [features.to(z.dtype), torch.ones_like(squared_norm), -0.5 * squared_norm], dim=1
        )

    def _time_factor(self, t: Tensor) -> Tensor:
        variance = self.interpolant.alpha(t).square() + self.interpolant.sigma(t).square()
        weights = self.time_network(self.time(t)).to(t.dtype)
        return torch.cat([weights, variance.reciprocal()[:, None]], dim=1)


def _full_precision_product(position: Tensor, time: Tensor) -> Tensor:
    """Return all inner products outside autocast: energies of 100 nats do not fit bf16.

    Args:
        position: ``(batch, features)``.
        time: ``(times, features)`` or ``(batch, times, features)``.

    Returns: ``(batch, times)``.
    """
    with torch.autocast(position.device.type, enabled=False):
        return (time @ position[..., None])[..., 0] if time.ndim == 3 else position @ time.T
