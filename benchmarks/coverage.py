"""Do 95 % intervals hold the truth in 95 of 100 repetitions? Weights whose sums are closed forms.

Each case draws exact log weights, with a known mean weight on both sides of a state, and what a
learned density would make of them; the estimator sees exact ones of 1,250 of 10,000 samples and
of 625 of each side that are drawn by their weights, as a run does.

    python benchmarks/coverage.py --write                 # minutes on one core
    python benchmarks/coverage.py --repetitions 100 --case C --case one_sided_07
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import FOLDER, publish

from bnce_dist.core.exact_subset import select_for_exact
from bnce_dist.core.free_energy import FreeEnergyDifference, stratified_delta_f
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.metrics import evidence
from bnce_dist.generator.verdict import judge

Array = NDArray[np.float64]
Error = Callable[[np.random.Generator, Array, NDArray[np.bool_]], Array]

SHIFT_IN_STATE = -3.0


@dataclass(frozen=True)
class Tail:
    """Exact log weights on one side: a normal body, and a Pareto tail of shape ``k``.

    Args:
        sd: Standard deviation of the body [nats].
        k: Shape of the tail; 0 for none.
    """

    sd: float
    k: float = 0.0

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Return log weights, ``(size,)``."""
        return self.sd * rng.standard_normal(size) + self.k * rng.exponential(size=size)

    @property
    def log_mean(self) -> float:
        """Log of the mean weight: of a log-normal variable times a Pareto variable.

        Infinite where the tail has no mean.
        """
        return self.sd**2 / 2 - math.log(1 - self.k) if self.k < 1 else math.inf


@dataclass(frozen=True)
class Mixture(Tail):
    """Exact log weights on one side, of which few are larger by a jump: a rare conformation.

    Args:
        probability: Of the jump.
        jump: Its size [nats].
    """

    probability: float = 0.0
    jump: float = 0.0

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """Return log weights, ``(size,)``."""
        rare = rng.random(size) < self.probability
        return super().draw(rng, size) + np.where(rare, self.jump, 0.0)

    @property
    def log_mean(self) -> float:
        """Log of the mean weight."""
        return super().log_mean + math.log1p(self.probability * math.expm1(self.jump))


def noise(sd: float, in_state: float = 0.0, outside: float = 0.0) -> Error:
    """Return a normal error of the learned log weights with a bias on each side."""

    def draw(rng: np.random.Generator, tail: Array, inside: NDArray[np.bool_]) -> Array:
        return sd * rng.standard_normal(len(tail)) + np.where(inside, in_state, outside)

    return draw


def shrunk(share: float) -> Error:
    """Return an error that takes a share of the tail away, as smooth models do."""

    def draw(rng: np.random.Generator, tail: Array, inside: NDArray[np.bool_]) -> Array:
        return 0.3 * rng.standard_normal(len(tail)) - share * tail

    return draw


def outliers(sd: float, probability: float, mean: float) -> Error:
    """Return an error that now and then is larger by an exponential variable of a mean."""

    def draw(rng: np.random.Generator, tail: Array, inside: NDArray[np.bool_]) -> Array:
        struck = rng.random(len(tail)) < probability
        jumps = mean * rng.exponential(size=len(tail))
        return sd * rng.standard_normal(len(tail)) + np.where(struck, jumps, 0.0)

    return draw


@dataclass(frozen=True)
class Case:
    """What a run may meet.

    Args:
        rest: Exact log weights outside the state.
        state: Inside.
        error: Of the learned log weights.
        share: Of the samples in the state.
        num_samples: Samples.
        num_exact: Of them, the first ones that have an exact weight, and as many more do.
    """

    rest: Tail
    state: Tail
    error: Error
    share: float = 0.28
    num_samples: int = 10_000
    num_exact: int = 1_250

    @property
    def truth(self) -> float:
        """``f(state) - f(rest)`` [kT]."""
        weight_of_rest = math.log(1 - self.share) + self.rest.log_mean
        return weight_of_rest - math.log(self.share) - SHIFT_IN_STATE - self.state.log_mean

    def estimate(self, seed: int) -> tuple[FreeEnergyDifference, int]:
        """Return one repetition, and how many samples it had."""
        rng = np.random.default_rng(seed)
        inside = rng.random(self.num_samples) < self.share
        tail = np.where(inside, self.state.draw(rng, len(inside)), self.rest.draw(rng, len(inside)))
        exact = tail + np.where(inside, SHIFT_IN_STATE, 0.0)
        learned = exact + self.error(rng, tail, inside)
        known = np.full(len(exact), np.nan)
        subset = select_for_exact(
            learned, inside, num_random=self.num_exact, num_weighted=self.num_exact
        )
        known[subset.rows] = exact[subset.rows]
        result = stratified_delta_f(
            learned,
            known,
            inside,
            num_random=self.num_exact,
            inclusion=subset.inclusion,
            num_bootstrap=200,
            seed=seed,
        )
        return result, len(inside)


def _same(tail: Tail, error: Error, **options: Any) -> Case:
    return Case(tail, tail, error, **options)


CASES = {
    "A": _same(Tail(0.9), noise(0.38, 0.07)),
    "B": _same(Tail(0.9), noise(1.3, 0.3, -0.2)),
    "C": _same(Tail(1.5), noise(1.3, 0.3)),
    "D": _same(Tail(2.0), noise(1.3, 0.3)),
    "E": _same(Tail(0.5, 0.5), noise(0.8, 0.2)),
    "F": _same(Tail(0.5, 0.65), noise(0.8, 0.2)),
    "G": _same(Tail(0.5, 0.65), shrunk(0.5)),
    "H": _same(Tail(1.2), outliers(0.8, 1e-3, 4.0)),
    "small_state": _same(Tail(0.9), noise(0.8, 0.3), share=0.02),
    "small_state_tail_05": Case(Tail(0.9), Tail(0.5, 0.5), noise(0.8, 0.3), share=0.02),
    "small_state_tail_07": Case(Tail(0.9), Tail(0.5, 0.7), noise(0.8, 0.3), share=0.02),
    "small_state_tail_08": Case(Tail(0.9), Tail(0.5, 0.8), noise(0.8, 0.3), share=0.02),
    "small_state_tail_09": Case(Tail(0.9), Tail(0.5, 0.9), noise(0.8, 0.3), share=0.02),
    "small_state_no_mean": Case(Tail(0.9), Tail(0.5, 1.1), noise(0.8, 0.3), share=0.02),
    "medium_state": _same(Tail(0.9), noise(0.8, 0.3), share=0.12),
    "medium_state_tail_09": Case(Tail(0.9), Tail(0.5, 0.9), noise(0.8, 0.3), share=0.12),
    "one_sided_05": Case(Tail(0.5, 0.3), Tail(0.5, 0.5), noise(0.8, 0.3)),
    "one_sided_07": Case(Tail(0.5, 0.3), Tail(0.5, 0.7), noise(0.8, 0.3)),
    "one_sided_09": Case(Tail(0.5, 0.3), Tail(0.5, 0.9), noise(0.8, 0.3)),
    "one_sided_no_mean": Case(Tail(0.5, 0.3), Tail(0.5, 1.1), noise(0.8, 0.3)),
    "rest_09": Case(Tail(0.5, 0.9), Tail(0.5, 0.3), noise(0.8, 0.3)),
    "both_sides_08": _same(Tail(0.5, 0.8), noise(0.8)),
    "no_learned_tail": _same(Tail(0.2, 0.7), shrunk(1.0)),
    "no_learned_tail_09": Case(Tail(0.5, 0.3), Tail(0.5, 0.9), shrunk(1.0)),
    "log_normal_22": _same(Tail(2.2), noise(0.7, 0.2), share=0.4, num_exact=2_190),
    "rare_conformation": _same(Mixture(0.8, probability=0.005, jump=3.0), noise(0.5, 0.1)),
    "few_samples": _same(Tail(0.9), noise(0.6, 0.2), num_samples=1_000, num_exact=190),
    "few_samples_09": Case(
        Tail(0.9), Tail(0.5, 0.9), noise(0.6, 0.2), num_samples=1_000, num_exact=190
    ),
    "many_samples_09": Case(
        Tail(0.5, 0.3), Tail(0.5, 0.9), noise(0.8, 0.3), num_samples=40_000, num_exact=2_500
    ),
    "all_exact": _same(Tail(1.2), noise(1.0), num_exact=10_000),
}
"""A to H are those of the first review of the estimators; the others are harder.

Tails without a mean (k = 1.1) have no truth: there only an estimate that is not called reliable is
right."""


def measure(case: Case, repetitions: int) -> dict[str, float]:
    """Return how often intervals hold the truth, and what the verdict says of them.

    Args:
        case: What is met.
        repetitions: Independent data sets, seeds from 0 on.

    Returns: Their number, ``coverage`` of all and ``coverage_reliable`` of those called reliable
        (NaN if none is), the shares called reliable, and called so although the truth is outside,
        ``rmse_kT``, ``bias_kT`` and the median ``stderr_kT`` and half width of the interval;
        infinite where the truth is.
    """
    results = [case.estimate(seed) for seed in range(repetitions)]
    errors = np.array([result.value_kT for result, _ in results]) - case.truth
    ends = np.array([result.interval_kT for result, _ in results])
    covered = (ends[:, 0] <= case.truth) & (case.truth <= ends[:, 1])
    reliable = np.array([
        judge({"num_rejected": 0, "ess_num_samples": size, **evidence(result)}).reliable
        for result, size in results
    ])  # fmt: skip
    numbers = {
        "coverage": covered.mean(),
        "share_reliable": reliable.mean(),
        "coverage_reliable": covered[reliable].mean() if reliable.any() else math.nan,
        "share_reliable_and_wrong": (reliable & ~covered).mean(),
        "rmse_kT": math.sqrt(np.square(errors).mean()),
        "bias_kT": errors.mean(),
        "stderr_kT": np.median([result.stderr_kT for result, _ in results]),
        "half_width_kT": np.median(ends[:, 1] - ends[:, 0]) / 2,
    }
    rounded = {name: round(float(value), 4) for name, value in numbers.items()}
    return {"repetitions": repetitions, **rounded}


def main(
    repetitions: Annotated[int, typer.Option(min=2, help="Data sets of each case.")] = 1_000,
    case: Annotated[list[str] | None, typer.Option(help="Some of the cases.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Repeat every case, print one JSON line, and write it if asked.

    Cases that are not measured stay in the record as they were.
    """
    path = FOLDER / "coverage.json"
    cases = dict(read_json(path)["cases"]) if case and path.exists() else {}
    for name in case or CASES:
        numbers = measure(CASES[name], repetitions)
        # JSON has neither NaN nor infinity.
        cases[name] = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        typer.echo(f"{name:<20} {cases[name]}", err=True)
    ordered = {name: cases[name] for name in CASES if name in cases}
    publish("coverage", {"cases": ordered}, ("numpy",), write=write)


if __name__ == "__main__":
    typer.run(main)
