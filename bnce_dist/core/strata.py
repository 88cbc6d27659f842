"""One side of a state: its samples in a heavy, exact stratum and a light, calibrated one."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.errors import InputError
from bnce_dist.core.tails import MAX_NO_MEAN_PROBABILITY, fit_tail

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Fewer do not calibrate a stratum.
_MIN_CALIBRATING = 10
# Random numbers held at once.
_MAX_DRAWS = 4_000_000


@dataclass(frozen=True)
class SideWeights:
    """What is known of the weights on one side of a state.

    Args:
        num_samples: Samples on it.
        num_exact: Of them, those with an exact weight.
        ess: Effective number of its samples by exact weights (Kish).
        pareto_k: Shape of the exact weights' tail; 1 where fewer than five are in the tail.
        hidden_kT: How much larger the log of its weight may be than its samples show, if the tail
            has a mean [kT]; 0 where fewer than five are in it.
        no_mean_probability: That the tail is too heavy to have a mean; 1 where fewer than five are
            in it.
        largest_share: Share of its weight that one sample has.
        correction_kT: Log of its weight over its approximate weight [kT].
        correction_stderr_kT: Standard error of that [kT].
        calibration_stderr_kT: What the calibration of its light samples adds to the error of the
            log of its weight [kT].
    """

    num_samples: int
    num_exact: int
    ess: float
    pareto_k: float
    hidden_kT: float
    no_mean_probability: float
    largest_share: float
    correction_kT: float
    correction_stderr_kT: float
    calibration_stderr_kT: float

    @property
    def known_hidden_kT(self) -> float | None:
        """`hidden_kT`, or None where the tail may well have no mean and hide any weight [kT]."""
        return self.hidden_kT if self.no_mean_probability <= MAX_NO_MEAN_PROBABILITY else None


@dataclass(frozen=True)
class Replicates:
    """Bootstrap replicates of one side.

    Args:
        log_sums: Log of the side's weight, ``(replicates,)`` [nats].
        corrections: Log of its weight over its approximate weight, ``(replicates,)`` [nats].
        log_ratios: Log of the light stratum's calibration, ``(replicates,)`` [nats].
    """

    log_sums: FloatArray
    corrections: FloatArray
    log_ratios: FloatArray


@dataclass(frozen=True, eq=False)
class Side:
    """Samples on one side of a state.

    Weights are divided by their largest, ``exp(log_scale)``.

    Args:
        heavy: Whether each sample is heavier than every one without an exact weight, ``(n,)``.
        multiplicity: How many samples each of those stands for that calibrate the light stratum,
            zero for all others, ``(n,)``.
        known: Whether its exact weight is known, ``(n,)``.
        approximate: Approximate weights, ``(n,)``.
        exact: Exact weights, zero where unknown, ``(n,)``.
        log_scale: Log of the unit of weight [nats].
    """

    heavy: BoolArray
    multiplicity: FloatArray
    known: BoolArray
    approximate: FloatArray
    exact: FloatArray
    log_scale: float

    @classmethod
    def split(
        cls, log_weights: FloatArray, log_exact: FloatArray, multiplicity: FloatArray
    ) -> "Side":
        """Divide samples into strata.

        Few calibrating samples in the light stratum do not calibrate it: then all calibrating ones
        of the side do, and if they are few as well, all exact ones.

        Args:
            log_weights: Approximate, ``(n,)`` [nats].
            log_exact: Exact, ``(n,)`` [nats]; NaN where unknown.
            multiplicity: How many samples each stands for where it calibrates; zero for one that is
                exact only because it is among the heaviest, ``(n,)``.

        Raises: InputError: the samples that decide have no exact weight above zero.
        """
        known = ~np.isnan(log_exact)
        ceiling = log_weights[~known].max() if not known.all() else -np.inf
        heavy = known & ((log_weights > ceiling) | known.all())
        chosen = known & (multiplicity > 0)
        candidates = (chosen & ~heavy, chosen)
        calibrating = next((c for c in candidates if c.sum() >= _MIN_CALIBRATING), None)
        if calibrating is None:
            calibrating = known
        if not (multiplicity[calibrating] > 0).all():
            multiplicity = np.ones(len(known))
        stands_for = np.where(calibrating, multiplicity, 0.0)
        if ceiling == -np.inf:
            stands_for = np.zeros(len(known))
        log_scale = float(max(log_weights.max(), log_exact[known].max()))
        side = cls(
            heavy=heavy,
            multiplicity=stands_for,
            known=known,
            approximate=np.exp(log_weights - log_scale),
            exact=np.exp(np.where(known, log_exact, -np.inf) - log_scale),
            log_scale=log_scale,
        )
        _require_weight(side)
        return side

    @cached_property
    def ratio(self) -> float:
        """Exact over approximate weight of the light stratum, by those that calibrate it."""
        if not self.multiplicity.any():
            return 1.0
        return float(self.multiplicity @ self.exact / (self.multiplicity @ self.approximate))

    @cached_property
    def log_sum(self) -> float:
        """Log of the side's weight [nats]."""
        total = self.exact[self.heavy].sum() + self.ratio * self.approximate[~self.heavy].sum()
        return math.log(total) + self.log_scale

    @cached_property
    def influence(self) -> FloatArray:
        """What each sample adds to the log of the side's weight, ``(n,)``; their sum is 1."""
        parts = np.where(self.heavy, self.exact, self.ratio * self.approximate)
        if self.multiplicity.any():
            light = self.approximate[~self.heavy].sum()
            stretch = self.multiplicity * light / (self.multiplicity @ self.approximate)
            parts += stretch * (self.exact - self.ratio * self.approximate)
        return parts / math.exp(self.log_sum - self.log_scale)

    def replicates(self, num_replicates: int, rng: np.random.Generator) -> Replicates:
        """Return Bayesian bootstrap replicates.

        The light samples without an exact weight matter only by their sum, which is drawn as a
        whole, from the gamma distribution of its mean and variance.
        """
        columns = np.stack([
            np.where(self.heavy, self.exact, 0.0),
            self.multiplicity * self.exact,
            self.multiplicity * self.approximate,
            np.where(self.heavy, 0.0, self.approximate),
            self.approximate,
        ], axis=1)[self.known]  # fmt: skip
        step = max(1, _MAX_DRAWS // len(columns))
        sums = np.concatenate([
            rng.standard_exponential((min(step, num_replicates - start), len(columns))) @ columns
            for start in range(0, num_replicates, step)
        ])  # fmt: skip
        heavy, exact, approximate, light, every = sums.T
        others = _gamma_sums(self.approximate[~self.known], num_replicates, rng)
        ratio = exact / approximate if self.multiplicity.any() else np.ones(num_replicates)
        totals = heavy + ratio * (light + others)
        return Replicates(
            log_sums=np.log(totals) + self.log_scale,
            corrections=np.log(totals / (every + others)),
            log_ratios=np.log(ratio),
        )

    def summary(self, replicates: Replicates) -> SideWeights:
        """Return the evidence, with errors from bootstrap replicates of this side."""
        log_exact, multiplicity = self.population()
        tail = fit_tail(log_exact, multiplicity)
        weights = np.exp(log_exact - log_exact.max()), multiplicity
        mass = float(weights[0] @ multiplicity)
        total = math.exp(self.log_sum - self.log_scale)
        each = np.where(self.heavy, self.exact, self.ratio * self.approximate)
        light_share = float(each[~self.heavy].sum()) / total
        return SideWeights(
            num_samples=len(self.known),
            num_exact=int(self.known.sum()),
            ess=mass**2 / float(np.square(weights[0]) @ multiplicity),
            pareto_k=tail.shape if tail else 1.0,
            hidden_kT=tail.hidden_kT if tail else 0.0,
            no_mean_probability=tail.no_mean_probability if tail else 1.0,
            largest_share=float(each.max()) / total,
            correction_kT=math.log(total / float(self.approximate.sum())),
            correction_stderr_kT=float(replicates.corrections.std(ddof=1)),
            calibration_stderr_kT=float(replicates.log_ratios.std(ddof=1) * light_share),
        )

    def population(self) -> tuple[FloatArray, FloatArray]:
        """Return exact log weights and how many samples of the side each stands for.

        The tail that a verdict judges is fitted to these.

        Returns: ``(chosen,)`` [nats] and ``(chosen,)``.
        """
        light = np.where(self.heavy, 0.0, self.multiplicity)
        chosen = self.heavy | (light > 0)
        if light.any():
            light *= (~self.heavy).sum() / light.sum()
            # As many as have the stratum's weight, which is better known than their number, unless
            # few of little weight stand for the others.
            ours, all_light = light @ self.approximate, self.approximate[~self.heavy].sum()
            light *= np.clip(all_light / ours, 0.5, 2.0) if ours > 0 else 1.0
        counts = np.where(self.heavy, 1.0, light)[chosen]
        with np.errstate(divide="ignore"):
            return np.log(self.exact[chosen]) + self.log_scale, counts


def light_log_ratio(side: Side) -> float:
    """Return what the light stratum's approximate log weights lack to be exact [nats]."""
    return math.log(side.ratio)


def _gamma_sums(weights: FloatArray, size: int, rng: np.random.Generator) -> FloatArray:
    largest = float(weights.max(initial=0.0))
    if not largest:
        return np.zeros(size)
    scaled = weights / largest  # whose squares do not vanish
    total, squares = float(scaled.sum()), float(np.square(scaled).sum())
    return largest * rng.gamma(total**2 / squares, squares / total, size)


def _require_weight(side: Side) -> None:
    is_calibrated = bool(side.multiplicity.any())
    decisive = side.multiplicity > 0 if is_calibrated else side.heavy
    if side.exact[decisive].sum() > 0 and (
        not is_calibrated or side.approximate[decisive].sum() > 0
    ):
        return
    raise InputError(
        "exact weights on one side of the state",
        expected="one above zero among the samples that calibrate the others",
        got=f"none among {int(decisive.sum())}",
        remedy="raise num_exact",
    )
