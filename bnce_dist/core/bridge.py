r"""The geometric path between two densities, and moves that leave each of its levels invariant."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.core.path import ProductPath

LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points ``(batch, dim)`` to log densities ``(batch,)`` [nats] and gradients
``(batch, dim)``. Not a number, or ``-inf``, means that the point is impossible."""


class Point(NamedTuple):
    """Where chains are, with both densities there.

    An impossible point has ``log_end = -inf``, ``log_start = 0`` and no gradients: it keeps every
    sum finite or ``-inf``.

    Args:
        z: ``(chains, dim)``.
        log_start: Log density of the path's start, ``(chains,)`` [nats].
        log_end: Log density of its end, ``(chains,)`` [nats].
        gradient_start: Of ``log_start``, ``(chains, dim)``.
        gradient_end: Of ``log_end``, ``(chains, dim)``.
    """

    z: Tensor
    log_start: Tensor
    log_end: Tensor
    gradient_start: Tensor
    gradient_end: Tensor

    def log_density(self, fraction: float) -> Tensor:
        """Return the log density of a level, ``(chains,)`` [nats]."""
        return (1 - fraction) * self.log_start + fraction * self.log_end

    def gradient(self, fraction: float) -> Tensor:
        """Return the gradient of a level's log density, ``(chains, dim)``."""
        return (1 - fraction) * self.gradient_start + fraction * self.gradient_end

    def take(self, chains: Tensor) -> "Point":
        """Return the chains of these indices."""
        return Point(*(array.index_select(0, chains) for array in self))

    def replaced(self, other: "Point", where: Tensor) -> "Point":
        """Return the other's chains where true, ``(chains,)``, and one's own elsewhere."""
        return Point(*(
            torch.where(where[:, None] if new.ndim == 2 else where, new, old)
            for old, new in zip(self, other, strict=True)
        ))  # fmt: skip


class Move(NamedTuple):
    """What one move did.

    Args:
        point: Where the chains are now.
        accepted: Which chains took their proposal, ``(chains,)`` bool.
        probability: With which they would have, ``(chains,)``.
        clashed: Which proposals were impossible, ``(chains,)`` bool.
    """

    point: Point
    accepted: Tensor
    probability: Tensor
    clashed: Tensor


@dataclass(frozen=True)
class Bridge:
    r"""The densities between two ends.

    .. math:: \log \pi_\lambda(z) = (1 - \lambda) \log \pi_0(z) + \lambda \log \pi_1(z)

    Args:
        start: :math:`\log \pi_0`.
        end: :math:`\log \pi_1`.
        space: Which coordinates are angles.
    """

    start: LogDensity
    end: LogDensity
    space: ProductPath

    def evaluate(self, z: Tensor) -> Point:
        """Return both densities and their gradients at points ``(chains, dim)``.

        Raises: InputError: a density that gives no gradient, or one of another shape.
        """
        log_start, gradient_start = _checked("start", self.start(z), z)
        log_end, gradient_end = _checked("end", self.end(z), z)
        possible = log_start.isfinite() & log_end.isfinite() & z.isfinite().all(1)
        return Point(
            z,
            torch.where(possible, log_start, 0.0),
            torch.where(possible, log_end, -torch.inf),
            # Leapfrog steps are reversible and keep volumes whatever they take for the gradient.
            torch.where(possible[:, None] & gradient_start.isfinite(), gradient_start, 0.0),
            torch.where(possible[:, None] & gradient_end.isfinite(), gradient_end, 0.0),
        )

    def move(
        self,
        point: Point,
        fraction: float,
        step_size: Tensor | float,
        num_leapfrog: int,
        generator: torch.Generator | None,
    ) -> Move:
        r"""Make one step of Hamiltonian Monte Carlo, which leaves a level invariant.

        Args:
            point: Where the chains are.
            fraction: The level, in (0, 1].
            step_size: Of the leapfrog integrator, of every coordinate ``(dim,)`` or one for all.
            num_leapfrog: Its steps: so many gradients.
            generator: Of momenta and decisions, on the points' device.

        Source: Duane et al. (1987), Phys. Lett. B 195, 216.
        """
        z = point.z
        momentum = torch.empty_like(z).normal_(generator=generator)
        before = point.log_density(fraction) - 0.5 * momentum.square().sum(1)
        proposal = point
        momentum = momentum + 0.5 * step_size * proposal.gradient(fraction)
        for step in range(num_leapfrog):
            proposal = self.evaluate(self.space.wrap(proposal.z + step_size * momentum))
            kick = 0.5 if step == num_leapfrog - 1 else 1.0
            momentum = momentum + kick * step_size * proposal.gradient(fraction)
        after = proposal.log_density(fraction) - 0.5 * momentum.square().sum(1)
        # The difference of two impossible points is not a number: no move.
        log_ratio = torch.where((after - before).isnan(), -torch.inf, after - before)
        threshold = torch.empty_like(log_ratio).uniform_(generator=generator).log()
        accepted = threshold < log_ratio
        return Move(
            point.replaced(proposal, accepted),
            accepted,
            log_ratio.clamp(max=0).exp(),
            proposal.log_end.isneginf(),
        )


def _checked(name: str, result: object, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a density gave if it is values and gradients of these points."""
    parts = result if isinstance(result, tuple) else (result,)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part) for part in parts]
    if shapes != [z.shape[:1], z.shape]:
        raise InputError(
            f"density at the {name} of the path",
            expected=f"log densities and their gradients, {[tuple(z.shape[:1]), tuple(z.shape)]}",
            got=shapes,
            remedy="take a target with gradients",
        )
    return parts[0], parts[1]
