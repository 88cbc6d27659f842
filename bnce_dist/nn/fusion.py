r"""How position and time meet in an energy model: early, in the network, or late, in a product."""

import contextlib
import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.nn.blocks import ResidualMLP, TimeEmbedding
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.recomputing import Recomputing


class EarlyFusion(EnergyModel, Recomputing):
    """An energy whose network sees position and time together.

    Every pair of a point and a time costs a pass through the network, so contrasting a point
    with many times is expensive. With activation checkpointing the times take turns, and memory
    does not grow with their number. (The score's own pass is differentiated twice, which needs
    all of its activations anyway.)
    """

    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        """Return ``U`` at several times, ``(batch, times)`` (see ``EnergyModel.at_times``)."""
        own_times = times.expand(len(z), -1)
        if self.activation_checkpointing:
            columns = [self.recomputed(self.forward, z, t) for t in own_times.unbind(1)]
            return torch.stack(columns, dim=1)
        num_times = own_times.shape[1]
        energies = self.forward(z.repeat_interleave(num_times, dim=0), own_times.flatten())
        return energies.view(-1, num_times)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``forward(z, t)`` and ``at_times(z, times)``.

        Two calls: in one, the score would be differentiated through the other times as well.
        """
        return self.forward(z, t), self.at_times(z, times)


class LateFusion(EnergyModel):
    r"""An energy in which position and time meet only in an inner product.

    .. math:: U_t(z) = f(z) \cdot g(t) / \sqrt D + g_0(t)
                       - \frac{|z_e|^2}{2(\alpha^2(t) + \sigma^2(t))}

    ``f`` is evaluated once for any number of times, so contrasting a point with many times costs
    one matrix product. The last term is exact for standard normal data; the network learns the
    rest. ``g`` and ``g_0`` have no final bias: that of ``g_0`` would shift ``U`` by a constant,
    which no objective sees.

    Args:
        position_network: The parameters of ``f``; ``position_features`` evaluates it.
        num_euclidean: Size of the Euclidean block, which comes first.
        interpolant: Name of the path's Euclidean interpolant.
        num_features: ``D``.
        time_width: Hidden features of ``g``.
        time_depth: Residual blocks of ``g``.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding; best that of the objective.
    """

    def __init__(
        self,
        position_network: nn.Module,
        num_euclidean: int,
        /,
        *,
        interpolant: str,
        num_features: int,
        time_width: int,
        time_depth: int,
        num_time_frequencies: int,
        time_exponent: float,
    ) -> None:
        super().__init__()
        self.num_euclidean = num_euclidean
        self.feature_scale = 1 / math.sqrt(num_features)
        self.interpolant = interpolant_from_name(interpolant)
        self.position_network = position_network
        self.time = TimeEmbedding(num_time_frequencies, time_exponent)
        self.time_network = ResidualMLP(
            self.time.num_features, time_width, time_depth, num_features + 1, output_bias=False
        )

    @abstractmethod
    def position_features(self, z: Tensor) -> Tensor:
        """Return ``f(z)``, ``(batch, num_features)``."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)`` (see ``EnergyModel.forward``)."""
        return self.fused(self._factor_of(z), t)

    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        """Return ``U`` at several times, ``(batch, times)`` (see ``EnergyModel.at_times``)."""
        time = self._time_factor(times.flatten()).unflatten(0, times.shape)
        return _full_precision_product(self._factor_of(z), time)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``forward(z, t)`` and ``at_times(z, times)`` from one pass over the points."""
        return self.fused_with_times(self._factor_of(z), t, times)

    def fused(self, position: Tensor, t: Tensor) -> Tensor:
        """Return ``U`` of points, ``(batch,)``, given their ``position_factor``."""
        return (position * self._time_factor(t)).sum(1)

    def fused_with_times(self, position: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward_with_times`` does, given the ``position_factor`` of points."""
        time = self._time_factor(torch.cat([t, times.flatten()]))
        own, others = time[: len(t)], time[len(t) :].unflatten(0, times.shape)
        return (position * own).sum(1), _full_precision_product(position, others)

    def position_factor(self, features: Tensor, euclidean: Tensor) -> Tensor:
        """Return what times are multiplied with.

        Args:
            features: ``f``, ``(batch, num_features)``.
            euclidean: Euclidean block of the points.

        Returns: ``(batch, num_features + 2)``.
        """
        scaled = (self.feature_scale * features).to(euclidean.dtype)
        squared_norm = euclidean.square().sum(1, keepdim=True)
        return torch.cat([scaled, torch.ones_like(squared_norm), -0.5 * squared_norm], dim=1)

    def _factor_of(self, z: Tensor) -> Tensor:
        return self.position_factor(self.position_features(z), z[:, : self.num_euclidean])

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
    kind = position.device.type
    has_autocast = torch.amp.is_autocast_available(kind)  # not so on the device meta
    with torch.autocast(kind, enabled=False) if has_autocast else contextlib.nullcontext():
        return (time @ position[..., None])[..., 0] if time.ndim == 3 else position @ time.T
