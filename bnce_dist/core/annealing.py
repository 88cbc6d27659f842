r"""Annealed importance sampling: weighted samples of one density from samples of another.

Samples of a density that is cheap to draw from walk through a sequence of densities to the one
that is asked for, and carry a weight that makes every expectation exact however short the walk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from torch import Tensor

from bnce_dist.core.bridge import Bridge, Point
from bnce_dist.core.errors import InputError
from bnce_dist.core.resampling import systematic_ancestors

MAX_LEVELS = 100
# Where clashes at the start lose their weight at any usual step, the first levels are this short
# and double, so that moves take many of them out of the clash before that.
_FIRST_FRACTION = 1e-5
_DOUBLINGS = 10
# Of a given number: as levels lie that are chosen one by one for peptides, denser at the start.
GIVEN_SPACING = 1.5
DEFAULT_LEAPFROG = 5
# The optimum of Hamiltonian Monte Carlo lies between 0.65 and 0.8: Beskos et al. (2013).
TARGET_ACCEPTANCE = 0.8
INITIAL_STEP_SIZE = 0.25
# Moves of the pilot per level: the first one starts from a step size that may be far off.
_FIRST_MOVES, _MOVES = 15, 2
# Of a gradient that tells how wide coordinates are, over the median.
_MAX_LENGTH = 2.0
# Below so many chains, all of them may be rejected by chance.
_MIN_CHAINS_TO_JUDGE = 20
_RESAMPLE_PILOT_BELOW = 0.5


@dataclass(frozen=True)
class AnnealingSchedule:
    r"""The levels of an annealing run, decided before it so that its weights are exact.

    Args:
        fractions: :math:`\lambda_1 < \dots < \lambda_K = 1`; the path starts at 0.
        step_sizes: Of the move at each level, in units of the widths.
        num_leapfrog: Leapfrog steps of every move.
        widths: Of every coordinate at each level, ``(levels, dim)``, or ``(levels, 1)`` of one for
            all; by default that is 1.

    Raises: InputError: no level, fractions that do not increase to 1, a step size or a width that
        is not positive, or no leapfrog step.
    """

    fractions: tuple[float, ...]
    step_sizes: tuple[float, ...]
    num_leapfrog: int = DEFAULT_LEAPFROG
    widths: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        # Lists, as JSON gives them back, are fine.
        object.__setattr__(self, "fractions", tuple(self.fractions))
        object.__setattr__(self, "step_sizes", tuple(self.step_sizes))
        widths = self.widths or ((1.0,),) * len(self.fractions)
        object.__setattr__(self, "widths", tuple(tuple(level) for level in widths))
        _require_at_least_one(num_levels=self.num_levels, num_leapfrog=self.num_leapfrog)
        steps = np.diff([0.0, *self.fractions])
        if not (steps > 0).all() or self.fractions[-1] != 1:
            raise InputError(
                "fractions of an annealing schedule",
                expected="numbers that increase from above 0 to exactly 1",
                got=f"{self.fractions[:3]} ... {self.fractions[-1]}",
                remedy="take the schedule from tune_schedule",
            )
        usable = all(0 < size < math.inf for size in self.step_sizes)
        if not usable or len(self.step_sizes) != self.num_levels:
            raise InputError(
                "step sizes of an annealing schedule",
                expected=f"{self.num_levels} positive numbers, one per level",
                got=self.step_sizes,
                remedy="take the schedule from tune_schedule",
            )
        usable = all(0 < width < math.inf for level in self.widths for width in level)
        lengths = [len(level) for level in self.widths]
        if not usable or lengths != [len(self.widths[0])] * self.num_levels:
            raise InputError(
                "widths of an annealing schedule",
                expected=f"positive numbers, as many at each of {self.num_levels} levels",
                got=f"{len(lengths)} levels of {sorted(set(lengths))} numbers",
                remedy="take the schedule from tune_schedule",
            )

    @property
    def num_levels(self) -> int:
        """Number of levels, K."""
        return len(self.fractions)

    def steps(self, like: Tensor) -> Tensor:
        """Return the step of every coordinate at each level, ``(levels, dim)``.

        Args:
            like: Samples ``(samples, dim)``, whose type and device it takes.
        """
        sizes = like.new_tensor(self.step_sizes)[:, None]
        return (sizes * like.new_tensor(self.widths)).expand(-1, like.shape[1])


@dataclass(frozen=True, eq=False)
class Annealed:
    r"""Weighted samples of the end of a path.

    .. math:: \log w = \sum_{k=1}^{K} (\lambda_k - \lambda_{k-1})
              \big( \log \pi_1(z_{k-1}) - \log \pi_0(z_{k-1}) \big)

    With :math:`z_0` from the normalised :math:`\pi_0`, the mean of :math:`w` is the integral of
    :math:`\pi_1`. For samples of another density q multiply by :math:`\pi_0(z_0) / q(z_0)`.

    Args:
        z: Where the samples are, ``(samples, dim)``.
        log_weights: Unnormalised, ``(samples,)`` float64 [nats]; ``-inf`` for a sample that was
            impossible at the start.
        log_start: Log density of the path's start at ``z``, ``(samples,)`` [nats].
        log_end: Log density of its end at ``z``, ``(samples,)`` [nats].
        accepted: Which moves were, ``(samples, levels)`` bool.
        clashed: Which were rejected because the proposal was impossible, likewise.
        ancestors: From which sample at the start each one descends, ``(samples,)`` int64;
            ``0 ... samples - 1`` unless they were resampled.
        num_gradients: Gradients of each of the two densities.
    """

    z: Tensor
    log_weights: Tensor
    log_start: Tensor
    log_end: Tensor
    accepted: Tensor
    clashed: Tensor
    ancestors: Tensor
    num_gradients: int

    @property
    def acceptance(self) -> Tensor:
        """Share of accepted moves, ``(levels,)`` float64."""
        return self.accepted.double().mean(0)


def anneal(
    bridge: Bridge,
    z: Tensor,
    schedule: AnnealingSchedule,
    generator: torch.Generator,
    *,
    resample_below: float = 0.0,
) -> Annealed:
    """Take samples of a bridge's start to its end, with weights.

    Without resampling the samples stay independent of each other. With it they are one
    population: error bars are over several of these (see `log_mean_weight`).

    Args:
        bridge: From the density of the samples to the one asked for.
        z: Samples of the start, ``(samples, dim)``.
        schedule: Levels and step sizes, tuned on other samples.
        generator: Of the moves, on the samples' device.
        resample_below: Resample after a level's weighting if the effective sample size is below
            this fraction; never by default.

    Raises: InputError: wrong shape, densities that give no gradients, or no chain that moves at
        some level.
    Source: Neal (2001), Stat. Comput. 11, 125; with resampling Del Moral, Doucet and Jasra
        (2006), J. R. Stat. Soc. B 68, 411.
    """
    _require_points(bridge, z)
    if len(schedule.widths[0]) not in (1, z.shape[1]):
        raise InputError(
            "annealing schedule",
            expected=f"widths of {z.shape[1]} coordinates",
            got=f"of {len(schedule.widths[0])}",
            remedy="tune a schedule for these densities",
        )
    annealed = _through_levels(bridge, bridge.evaluate(z), schedule, generator, resample_below)
    # A chain that was impossible at the start may never move, and has no weight anyway.
    if annealed.log_weights.isfinite().sum() >= _MIN_CHAINS_TO_JUDGE:
        _require_moves(annealed.acceptance.tolist())
    return annealed


def _through_levels(
    bridge: Bridge,
    point: Point,
    schedule: AnnealingSchedule,
    generator: torch.Generator | None,
    resample_below: float,
) -> Annealed:
    """Do what `anneal` does to samples that were checked; never waits for the device."""
    log_weights = torch.zeros_like(point.log_end, dtype=torch.float64)
    ancestors = torch.arange(len(log_weights), device=log_weights.device)
    accepted, clashed, previous = [], [], 0.0
    for fraction, step_size in zip(schedule.fractions, schedule.steps(point.z), strict=True):
        log_weights = log_weights + (fraction - previous) * _log_ratio(point)
        if resample_below > 0:
            chosen, log_weights = _resampled(log_weights, resample_below, generator)
            point, ancestors = point.take(chosen), ancestors[chosen]
        move = bridge.move(point, fraction, step_size, schedule.num_leapfrog, generator)
        point = move.point
        accepted.append(move.accepted)
        clashed.append(move.clashed)
        previous = fraction
    return Annealed(
        z=point.z,
        log_weights=log_weights,
        log_start=point.log_start,
        log_end=point.log_end,
        accepted=torch.stack(accepted, dim=1),
        clashed=torch.stack(clashed, dim=1),
        ancestors=ancestors,
        num_gradients=len(log_weights) * (1 + schedule.num_levels * schedule.num_leapfrog),
    )


def tune_schedule(
    bridge: Bridge,
    z: Tensor,
    generator: torch.Generator,
    *,
    num_levels: int | None = None,
    min_ess_fraction: float = 0.95,
    max_levels: int = MAX_LEVELS,
    num_leapfrog: int = DEFAULT_LEAPFROG,
) -> AnnealingSchedule:
    """Find levels, widths and step sizes by a pilot run.

    A coordinate is as wide as gradients g say, :math:`\\langle g^2 \\rangle^{-1/2}`: as a Gaussian
    would be in it, given all others. Each step size makes the moves of its level accepted four
    times out of five. Of a given number K of levels the k-th is at :math:`(k / K)^{3/2}`; else each
    one is as far from the last as the conditional effective sample size allows, but there are never
    more than ``max_levels``: where some samples begin in clashes, with short first levels that
    double. Samples all of which are impossible at the end need no path: one level takes them there
    without weight.

    Args:
        bridge: From the density of the samples to the one asked for.
        z: Samples of the start, ``(samples, dim)``; not the ones to be annealed by the result,
            whose weights would be biased.
        generator: Of the moves, on the samples' device.
        num_levels: Number of levels, or None to choose it.
        min_ess_fraction: Bound of the conditional effective sample size of a level, as a
            fraction; only where levels are chosen.
        max_levels: Most that are chosen, whatever that bound.
        num_leapfrog: Leapfrog steps of every move.

    Raises: InputError: as for `anneal`; a number below one or a fraction outside (0, 1).
    Source: Zhou, Johansen and Aston (2016), J. Comput. Graph. Stat. 25, 701, section 3.3.
    """
    _require_at_least_one(num_levels=num_levels, num_leapfrog=num_leapfrog)
    if max_levels < MAX_LEVELS:  # Short first levels and the way from there need so many.
        raise InputError(
            "max_levels", expected=f"at least {MAX_LEVELS}", got=max_levels,
            remedy="give num_levels for fewer",
        )  # fmt: skip
    if not 0 < min_ess_fraction < 1:
        raise InputError(
            "min_ess_fraction", expected="in (0, 1)", got=min_ess_fraction,
            remedy="0.99 gives some 10 levels",
        )  # fmt: skip
    _require_points(bridge, z)
    point = bridge.evaluate(z)
    possible = point.log_end.isfinite()
    if not possible.any():
        return AnnealingSchedule((1.0,), (INITIAL_STEP_SIZE,), num_leapfrog)
    # The others may never move, which would look like steps that are too long.
    point = point.take(possible.nonzero().squeeze(1))
    log_weights = torch.zeros_like(point.log_end, dtype=torch.float64)
    fractions, step_sizes = [0.0], [INITIAL_STEP_SIZE]
    widths: list[Tensor] = []
    acceptance: list[float] = []
    while fractions[-1] < 1:
        log_ratio = _log_ratio(point)
        if num_levels is None:
            bounds = min_ess_fraction, max_levels
            fraction = _next_fraction(fractions[-1], log_weights, log_ratio, *bounds)
        else:
            fraction = (len(fractions) / num_levels) ** GIVEN_SPACING
        log_weights = log_weights + (fraction - fractions[-1]) * log_ratio
        chosen, log_weights = _resampled(log_weights, _RESAMPLE_PILOT_BELOW, generator)
        point, step_size = point.take(chosen), step_sizes[-1]
        widths.append(_widths(point.gradient(fraction)))
        for _ in range(_MOVES if acceptance else _FIRST_MOVES):
            move = bridge.move(point, fraction, step_size * widths[-1], num_leapfrog, generator)
            point, probability = move.point, float(move.probability.mean())
            step_size *= math.exp(probability - TARGET_ACCEPTANCE)
        fractions.append(fraction)
        step_sizes.append(step_size)
        acceptance.append(probability)
    _require_moves(acceptance)
    rows = tuple(tuple(level.tolist()) for level in widths)
    return AnnealingSchedule(tuple(fractions[1:]), tuple(step_sizes[1:]), num_leapfrog, rows)


def log_mean_weight(
    log_weights: ArrayLike, populations: ArrayLike | None = None
) -> tuple[float, float]:
    """Return the log of the mean weight, an estimate of the end's log integral, and its error.

    Args:
        log_weights: Of all samples, ``(samples,)`` [nats].
        populations: To which independent population each belongs, ``(samples,)`` int. Samples
            that were not resampled are populations of their own, as by default.

    Returns: Value and standard error over populations, both in nats.
    Raises: InputError: fewer than two populations, or no positive weight.
    """
    logs = np.asarray(log_weights, dtype=np.float64)
    labels = np.arange(len(logs)) if populations is None else np.asarray(populations)
    found, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    log_sum = float(logsumexp(logs)) if len(logs) else -math.inf
    if len(found) < 2 or not math.isfinite(log_sum):
        raise InputError(
            "populations",
            expected="at least two, and a positive weight",
            got=f"{len(found)} with log total {log_sum:g}",
            remedy="anneal several populations from different seeds",
        )
    # Linearised: the mean is a ratio of the populations' totals and sizes.
    shares = np.bincount(members, weights=np.exp(logs - log_sum))
    deviation = len(found) * (shares - sizes / len(logs))
    stderr = math.sqrt(np.square(deviation).sum() / (len(found) * (len(found) - 1)))
    return log_sum - math.log(len(logs)), stderr


def num_levels_at_limit(fractions: ArrayLike, max_levels: int) -> int:
    """Return how many levels cost more weight than asked, since more levels were not allowed.

    Args:
        fractions: Of a schedule whose levels were chosen, ``(levels,)``.
        max_levels: What `tune_schedule` was given.
    """
    steps = np.diff(np.asarray(fractions, dtype=np.float64), prepend=0.0)
    return int(np.isclose(steps, _longest_forced(max_levels), rtol=1e-6, atol=0).sum())


def _widths(gradients: Tensor) -> Tensor:
    """Return the width of every coordinate by gradients of a log density, ``(dim,)``."""
    # Chains in clashes have the largest gradients by far; impossible ones have none.
    lengths = gradients.norm(dim=1).clamp_min(torch.finfo(gradients.dtype).tiny)
    shortened = gradients * (_MAX_LENGTH * lengths.median() / lengths).clamp(max=1)[:, None]
    # No more than one: model space is whitened, and angles are in radians.
    return shortened.square().mean(0).clamp_min(1).rsqrt()


def _log_ratio(point: Point) -> Tensor:
    return point.log_end.double() - point.log_start.double()


def _resampled(
    log_weights: Tensor, below: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return ancestors and new log weights; nothing changes while enough samples have weight."""
    own = torch.arange(len(log_weights), device=log_weights.device)
    chosen = systematic_ancestors(log_weights, len(log_weights), generator)
    log_total = log_weights.logsumexp(0)
    is_poor = _ess_fraction(log_weights) < below  # Not true of not-a-number: no weight at all.
    equal = (log_total - math.log(len(log_weights))).expand_as(log_weights)
    return torch.where(is_poor, chosen, own), torch.where(is_poor, equal, log_weights)


def _ess_fraction(log_weights: Tensor) -> Tensor:
    return log_weights.softmax(0).square().sum().reciprocal() / len(log_weights)


def _next_fraction(
    last: float, log_weights: Tensor, log_ratio: Tensor, min_ess_fraction: float, max_levels: int
) -> float:
    """Return the largest fraction at which a level keeps its conditional sample size."""
    shortest = min(max(last, _FIRST_FRACTION), _longest_forced(max_levels))

    def is_enough(fraction: float) -> bool:
        step = (fraction - last) * log_ratio
        ess = 2 * (log_weights + step).logsumexp(0) - (log_weights + 2 * step).logsumexp(0)
        return bool((ess - log_weights.logsumexp(0)).exp() >= min_ess_fraction)

    if is_enough(1.0):
        return 1.0
    # Where no step is short enough the weights will tell.
    low, high = min(last + shortest, 1.0), 1.0
    if not is_enough(low):
        return low
    while high - low > 0.1 * (low - last):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return low


def _longest_forced(max_levels: int) -> float:
    # Ten doublings are eleven levels.
    return 1 / (max_levels - _DOUBLINGS - 1)


def _require_at_least_one(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(
                f"{name} of annealing",
                expected="at least 1",
                got=number,
                remedy="20 and 5 are usual",
            )


def _require_points(bridge: Bridge, z: Tensor) -> None:
    if z.ndim != 2 or z.shape[1] != bridge.space.dim or not len(z):
        raise InputError(
            "samples to anneal",
            expected=f"shape (samples, {bridge.space.dim}), at least one",
            got=f"shape {tuple(z.shape)}",
            remedy="give samples in the coordinates of both densities",
        )


def _require_moves(acceptance: Sequence[float]) -> None:
    stuck = [level for level, accepted in enumerate(acceptance, start=1) if accepted == 0]
    if stuck:
        raise InputError(
            f"moves at level {stuck[0]} of {len(acceptance)}",
            expected="some that are accepted",
            got="all rejected",
            remedy="tune the schedule for these densities, or take smaller steps",
        )
