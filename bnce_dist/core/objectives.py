"""Training objectives: modules whose forward holds everything that needs a gradient.

A trainer calls ``draw`` for the samples of a step (all randomness), with one generator for them and
one for what all samples of the step have in common, the ``shared`` tensors; and backpropagates
``forward(...)["loss"]``.
All losses are means over samples, so the mean over equal shards is the global loss.
``double_backward`` says whether ``forward`` takes a gradient, which is then differentiated again.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.core.path import ProductPath


class EnergyModel(Protocol):
    """What ``EnergyMatching`` needs of a model (see ``nn.energy_model.EnergyModel``)."""

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)``."""
        ...

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


def _require(what: str, holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise InputError(what, expected=expected, got=got, remedy="correct the configuration")


def shuffled_times(
    num_times: int, exponent: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return ``stratified_times`` in random order, one for each sample of a batch."""
    times = stratified_times(num_times, exponent, generator, like)
    order = torch.randperm(num_times, generator=generator, device=generator.device)
    return times[order.to(like.device)]


def _draw_samples(
    path: ProductPath, x_data: Tensor, exponent: float, generator: torch.Generator
) -> dict[str, Tensor]:
    times = shuffled_times(len(x_data), exponent, generator, like=x_data)
    noise = path.sample_noise(len(x_data), generator, x_data.dtype).to(x_data)
    return {"x_data": x_data, "x_noise": noise, "t": times}


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

    Examples:
        Normal data on a variance-preserving path need no velocity; what is left is the noise:

        >>> from bnce_dist.core.interpolant import TrigonometricInterpolant
        >>> from bnce_dist.core.random import generator
        >>> class Rest(nn.Module):
        ...     def forward(self, z, t):
        ...         return torch.zeros_like(z)
        >>> objective = FlowMatching(Rest(), ProductPath(TrigonometricInterpolant(), 2))
        >>> x_data = torch.randn(10_000, 2, generator=generator(0, "data"))
        >>> loss = objective(**objective.draw(x_data, generator(0, "batch")))["loss"]
        >>> round(float(loss), 1)
        1.0
    """

    shared: ClassVar[frozenset[str]] = frozenset()
    double_backward: ClassVar[bool] = False

    def __init__(
        self, velocity_field: nn.Module, path: ProductPath, time_exponent: float = 1.0
    ) -> None:
        super().__init__()
        _require("time_exponent", time_exponent > 0, "above 0", time_exponent)
        self.velocity_field = velocity_field
        self.path = path
        self.time_exponent = time_exponent

    def draw(
        self,
        x_data: Tensor,
        generator: torch.Generator,
        common: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the arguments of ``forward``.

        Args:
            x_data: ``(batch, dim)``.
            generator: Source of randomness.
            common: Not needed: the samples have nothing in common.
        """
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


class Negatives(Protocol):
    """The times that InfoNCE contrasts a point's own time with."""

    shared: ClassVar[bool]
    """Whether all points have the same ones."""

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return times for samples ``like``, ``(batch, dim)``."""
        ...

    def candidates(self, own: Tensor, others: Tensor, t: Tensor) -> Tensor:
        """Return the energies at all times a point is to choose its own from.

        Args:
            own: At the own times, ``(batch,)``.
            others: At the negative times, ``(batch, negatives)``.
            t: The own times, ``(batch,)``.

        Returns: ``(batch, number + 1)``, ``own`` among them.
        """
        ...


@dataclass(frozen=True)
class StratifiedNegatives:
    """One time in each stratum of the time distribution, the same for all points.

    The point's own time takes the place of the one in its stratum. Given the candidates, the
    probability that ``m`` is the true time is then exactly proportional to ``p_{t_m}(x)``, so the
    minimiser is the true log density for any number of negatives; keeping all of them would bias
    it by O(1 / number).

    Args:
        number: How many, besides the point's own time.
        exponent: Times are ``u**exponent`` with ``u`` uniform.
    """

    number: int
    exponent: float

    shared: ClassVar[bool] = True

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return ascending times, one per stratum, ``(number + 1,)``."""
        return stratified_times(self.number + 1, self.exponent, generator, like)

    def candidates(self, own: Tensor, others: Tensor, t: Tensor) -> Tensor:
        """Return ``others`` with ``own`` in the column of its stratum."""
        num_strata = others.shape[1]
        stratum = (t ** (1 / self.exponent) * num_strata).long().clamp_(max=num_strata - 1)
        return others.scatter(1, stratum[:, None], own[:, None])


@dataclass(frozen=True)
class IndependentNegatives:
    """Times drawn anew for every point, from the distribution of its own time.

    The minimiser is the true log density for any number of negatives.

    Args:
        number: How many per point.
        exponent: Times are ``u**exponent`` with ``u`` uniform.

    Source: BoltzNCE, arXiv:2507.00846, planar systems (one uniform negative).
    """

    number: int
    exponent: float

    shared: ClassVar[bool] = False

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return independent times, ``(batch, number)``."""
        shape = (len(like), self.number)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        return (uniform**self.exponent).to(like)

    def candidates(self, own: Tensor, others: Tensor, t: Tensor) -> Tensor:
        """Return ``own`` and ``others`` side by side."""
        return torch.cat([own[:, None], others], dim=1)


_NEGATIVES: dict[str, type[StratifiedNegatives] | type[IndependentNegatives]] = {
    "stratified": StratifiedNegatives,
    "independent": IndependentNegatives,
}


class EnergyMatching(nn.Module):
    r"""Score matching and InfoNCE over times, from one pass over the points.

    .. math:: L_{score} = E \frac1d |\sigma(t) \nabla U_t(x_t) + \epsilon|^2, \qquad
              L_{InfoNCE} = -E \log \frac{e^{U_t(x_t)}}{e^{U_t(x_t)} + \sum_m e^{U_{t_m}(x_t)}}

    The score term is a mean over coordinates, so that it is 1 for an ignorant model in any
    dimension; it cannot see an added ``c(t)``. InfoNCE compares the time of a point with other
    times and cannot see an added ``c(x)``. A term of weight zero is not computed.

    Args:
        energy_model: The model.
        path: From data to prior.
        score_weight: Weight of the score term in the loss.
        infonce_weight: Weight of the InfoNCE term in the loss.
        num_negatives: Other times each point is compared with.
        negatives: ``"stratified"`` over the time distribution and common to all points, or
            ``"independent"`` draws from it for every point.
        time_exponent: Times are ``u**time_exponent`` with ``u`` uniform.

    Raises: InputError: an option is out of range, or both weights are zero.
    Source: Song & Ermon (2019) for the score term; van den Oord et al. (2018) for InfoNCE;
        BoltzNCE, arXiv:2507.00846, for their sum.

    Examples:
        Where no time is likelier than another, InfoNCE is the log of their number:

        >>> from bnce_dist.core.interpolant import TrigonometricInterpolant
        >>> from bnce_dist.core.random import generator
        >>> class Normal(nn.Module):
        ...     def forward_with_times(self, z, t, times):
        ...         energy = -0.5 * z.square().sum(1)
        ...         return energy, energy[:, None].expand(-1, len(times))
        >>> objective = EnergyMatching(
        ...     Normal(),
        ...     ProductPath(TrigonometricInterpolant(), 2),
        ...     score_weight=1.0,
        ...     infonce_weight=1.0,
        ...     num_negatives=7,
        ...     negatives="stratified",
        ...     time_exponent=2.5,
        ... )
        >>> x_data = torch.randn(100, 2, generator=generator(0, "data"))
        >>> losses = objective(**objective.draw(x_data, generator(0, "batch")))
        >>> round(math.exp(losses["infonce"].item()), 3)
        8.0
    """

    def __init__(
        self,
        energy_model: EnergyModel,
        path: ProductPath,
        *,
        score_weight: float,
        infonce_weight: float,
        num_negatives: int,
        negatives: Literal["stratified", "independent"],
        time_exponent: float,
    ) -> None:
        super().__init__()
        _require("time_exponent", time_exponent > 0, "above 0", time_exponent)
        _require("num_negatives", num_negatives >= 1, "at least 1", num_negatives)
        _require("score_weight", 0 <= score_weight < math.inf, "at least 0", score_weight)
        _require("infonce_weight", 0 <= infonce_weight < math.inf, "at least 0", infonce_weight)
        total = score_weight + infonce_weight
        _require("score_weight + infonce_weight", total > 0, "above 0", total)
        _require("negatives", negatives in _NEGATIVES, " or ".join(_NEGATIVES), negatives)
        self.energy_model = energy_model
        self.path = path
        self.score_weight = score_weight
        self.infonce_weight = infonce_weight
        self.negatives: Negatives = _NEGATIVES[negatives](num_negatives, time_exponent)
        self.time_exponent = time_exponent

    @property
    def shared(self) -> frozenset[str]:
        """Names of the drawn tensors that all samples of a step have in common."""
        return frozenset({"negative_times"} if self.negatives.shared else ())

    @property
    def double_backward(self) -> bool:
        """Whether the loss holds a gradient."""
        return self.score_weight > 0

    def draw(
        self,
        x_data: Tensor,
        generator: torch.Generator,
        common: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the arguments of ``forward``.

        Args:
            x_data: ``(batch, dim)``.
            generator: Source of randomness.
            common: Source of what is ``shared`` (default: the same one).
        """
        source = common if self.negatives.shared and common is not None else generator
        negative_times = self.negatives.draw(x_data, source)
        samples = _draw_samples(self.path, x_data, self.time_exponent, generator)
        return {**samples, "negative_times": negative_times}

    def forward(
        self, x_data: Tensor, x_noise: Tensor, t: Tensor, negative_times: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted loss and its parts that have a weight.

        Args:
            x_data: ``(batch, dim)``.
            x_noise: Standard normal, ``(batch, dim)``.
            t: ``(batch,)``.
            negative_times: What ``negatives.draw`` returned; if not shared, these points' rows.
        """
        x_t = self.path.interpolate(x_data, x_noise, t)
        return self._losses(self.energy_model, x_t, x_noise, t, negative_times)

    def _losses(
        self,
        model: EnergyModel,
        x_t: Tensor,
        x_noise: Tensor,
        t: Tensor,
        negative_times: Tensor,
        present: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return what ``forward`` does, given points; ``present`` marks coordinates that exist."""
        losses: dict[str, Tensor] = {}
        if self.score_weight > 0:
            own, others, gradient = self._energies_and_gradient(model, x_t, t, negative_times)
            squared = (self.path.noise_scale(t) * gradient + x_noise).square()
            if present is None:
                losses["score"] = squared.mean()
            else:
                losses["score"] = ((squared * present).sum(1) / present.sum(1)).mean()
        else:
            own, others = self._energies(model, x_t, t, negative_times)
        if self.infonce_weight > 0:
            candidates = self.negatives.candidates(own, others, t)
            losses["infonce"] = (candidates.logsumexp(1) - own).mean()
        weights = {"score": self.score_weight, "infonce": self.infonce_weight}
        # The score does not depend on every weight, and parallel ranks wait for each gradient.
        loss = 0.0 * own.mean() + sum(weights[name] * value for name, value in losses.items())
        return {"loss": loss, **losses}

    def _energies(
        self, model: EnergyModel, x_t: Tensor, t: Tensor, negative_times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the energies at the own times and, if InfoNCE has a weight, at the others."""
        if self.infonce_weight > 0:
            return model.forward_with_times(x_t, t, negative_times)
        own = model(x_t, t)
        return own, own.new_empty(len(own), 0)

    def _energies_and_gradient(
        self, model: EnergyModel, x_t: Tensor, t: Tensor, negative_times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``_energies`` and the gradient of the own ones, ``(batch, dim)``."""
        keep_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            x_t.requires_grad_()
            own, others = self._energies(model, x_t, t, negative_times)
            (gradient,) = torch.autograd.grad(own.sum(), x_t, create_graph=keep_graph)
        return own, others, gradient
