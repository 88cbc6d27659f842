"""Training objectives: modules whose forward holds everything that needs a gradient.

A trainer calls ``draw`` once per step for the global batch (all randomness), hands every rank
its rows of each tensor except the ``shared`` ones, and backpropagates ``forward(...)["loss"]``.
All losses are means over samples, so the mean over equal shards is the global loss.
"""

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.core.path import ProductPath


class EnergyModel(Protocol):
    """What ``EnergyMatching`` needs of a model (see ``nn.energy.LateFusionEnergy``)."""

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``U_t(z)``, ``(batch,)``, and ``U`` at all ``times``, ``(batch, times)``."""
        ...


def stratified_times(
    num_times: int, exponent: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return ascending times ``u**exponent`` with one uniform ``u`` in each of equal intervals.

    Args:
        num_times: How many.
        exponent: Above 1 the times concentrate at the data.
        generator: Source of randomness.
        like: Tensor whose device and precision the times take.

    Returns: ``(num_times,)`` in [0, 1].
    """
    offsets = torch.rand(
        num_times, generator=generator, device=generator.device, dtype=torch.float64
    )
    uniform = (torch.arange(num_times, device=generator.device) + offsets) / num_times
    return (uniform**exponent).to(like)


def _require(what: str, holds: bool, expected: str, got: float) -> None:
    if not holds:
        raise InputError(what, expected=expected, got=got, remedy="correct the configuration")


def _draw_samples(
    path: ProductPath, x_data: Tensor, exponent: float, generator: torch.Generator
) -> dict[str, Tensor]:
    num_samples = len(x_data)
    times = stratified_times(num_samples, exponent, generator, like=x_data)
    order = torch.randperm(num_samples, generator=generator, device=generator.device)
    noise = path.sample_noise(num_samples, generator, x_data.dtype).to(x_data)
    return {"x_data": x_data, "x_noise": noise, "t": times[order.to(x_data.device)]}


class FlowMatching(nn.Module):
    r"""Regression of the velocity on the path's time derivative.

    .. math:: L = E \frac1d \sum_i \left(\frac{v_i(x_t, t) - \dot x_{t,i}}{s_i(t)}\right)^2

    with ``s = path.velocity_scale(t)``: every coordinate and time has a target of unit scale, and
    in the circular block this is the regression of the noise.

    Args:
        velocity_field: Maps points ``(batch, dim)`` and times ``(batch,)`` to ``(batch, dim)``.
        path: From data to prior.
        time_exponent: Times are ``u**time_exponent`` with ``u`` uniform.

    Raises: InputError: the time exponent is not positive.
    Source: Lipman et al. (2023), eq. 9; Albergo & Vanden-Eijnden (2023).
    """

    shared: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self, velocity_field: nn.Module, path: ProductPath, time_exponent: float = 1.0
    ) -> None:
        super().__init__()
        _require("time_exponent", time_exponent > 0, "above 0", time_exponent)
        self.velocity_field = velocity_field
        self.path = path
        self.time_exponent = time_exponent

    def draw(self, x_data: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the arguments of ``forward`` for a global batch of data, ``(batch, dim)``."""
        return _draw_samples(self.path, x_data, self.time_exponent, generator)

    def forward(self, x_data: Tensor, x_noise: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Return the mean loss.

        Args:
            x_data: ``(batch, dim)``.
            x_noise: Standard normal, ``(batch, dim)``.
            t: ``(batch,)``, positive.
        """
        velocity = self.velocity_field(self.path.interpolate(x_data, x_noise, t), t)
        target = self.path.velocity_target(x_data, x_noise, t)
        return {"loss": ((velocity - target) / self.path.velocity_scale(t)).square().mean()}


class EnergyMatching(nn.Module):
    r"""Score matching and InfoNCE over times, from one pass over the points.

    .. math:: L_{score} = E \frac1d |\sigma(t) \nabla U_t(x_t) + \epsilon|^2, \qquad
              L_{InfoNCE} = -E \log \frac{e^{U_t(x_t)}}{e^{U_t(x_t)} + \sum_m e^{U_{t_m}(x_t)}}

    The score term is a mean over coordinates, so that it is 1 for an ignorant model in any
    dimension; it cannot see an added ``c(t)``. InfoNCE compares the time of a point with other
    times and cannot see an added ``c(x)``.

    The negatives are stratified: ``num_negatives + 1`` times, one in each stratum of the time
    distribution. The point's own time takes the place of the one in its stratum. Given the
    candidates, the probability that ``m`` is the true time is then exactly proportional to
    ``p_{t_m}(x)``, so the minimiser is the true log density for any number of negatives; keeping
    all of them would bias it by O(1 / num_negatives).

    Args:
        energy_model: The model.
        path: From data to prior.
        score_weight: Weight of the score term in the loss.
        infonce_weight: Weight of the InfoNCE term in the loss.
        num_negatives: Other times each point is compared with.
        time_exponent: Times are ``u**time_exponent`` with ``u`` uniform.

    Raises: InputError: the time exponent is not positive, or there are no negatives.
    Source: Song & Ermon (2019) for the score term; van den Oord et al. (2018) for InfoNCE.
    """

    shared: ClassVar[frozenset[str]] = frozenset({"negative_times"})

    def __init__(
        self,
        energy_model: EnergyModel,
        path: ProductPath,
        *,
        score_weight: float = 1.0,
        infonce_weight: float = 2.0,
        num_negatives: int = 128,
        time_exponent: float = 2.5,
    ) -> None:
        super().__init__()
        _require("time_exponent", time_exponent > 0, "above 0", time_exponent)
        _require("num_negatives", num_negatives >= 1, "at least 1", num_negatives)
        self.energy_model = energy_model
        self.path = path
        self.score_weight = score_weight
        self.infonce_weight = infonce_weight
        self.num_negatives = num_negatives
        self.time_exponent = time_exponent

    def draw(self, x_data: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the arguments of ``forward`` for a global batch of data, ``(batch, dim)``."""
        negative_times = stratified_times(
            self.num_negatives + 1, self.time_exponent, generator, like=x_data
        )
        samples = _draw_samples(self.path, x_data, self.time_exponent, generator)
        return {**samples, "negative_times": negative_times}

    def forward(
        self, x_data: Tensor, x_noise: Tensor, t: Tensor, negative_times: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted loss and its two parts.

        Args:
            x_data: ``(batch, dim)``.
            x_noise: Standard normal, ``(batch, dim)``.
            t: ``(batch,)``.
            negative_times: One per stratum, ascending, ``(num_negatives + 1,)``.
        """
        keep_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            x_t = self.path.interpolate(x_data, x_noise, t).requires_grad_()
            own, others = self.energy_model.forward_with_times(x_t, t, negative_times)
            (gradient,) = torch.autograd.grad(own.sum(), x_t, create_graph=keep_graph)
        score = (self.path.noise_scale(t) * gradient + x_noise).square().mean()
        infonce = self._infonce(own, others, t).mean()
        loss = self.score_weight * score + self.infonce_weight * infonce
        return {"loss": loss, "score": score, "infonce": infonce}

    def _infonce(self, own: Tensor, others: Tensor, t: Tensor) -> Tensor:
        """Return the cross-entropy of each point's own time among one time per stratum."""
        num_strata = others.shape[1]
        stratum = (t ** (1 / self.time_exponent) * num_strata).long().clamp_(max=num_strata - 1)
        candidates = others.scatter(1, stratum[:, None], own[:, None])
        return candidates.logsumexp(1) - own
