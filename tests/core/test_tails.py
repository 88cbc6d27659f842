"""What a tail may hide, against tails of known mean."""

import numpy as np
import pytest

from bnce_dist.core.tails import fit_tail

REPETITIONS = 300


@pytest.mark.parametrize("size", [200, 1000])
@pytest.mark.parametrize("k", [0.3, 0.6, 0.8, 0.9])
def test_the_true_mean_is_rarely_above_what_the_tail_may_hide(k: float, size: int) -> None:
    """A Pareto variable of shape k has the mean 1 / (1 - k)."""
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(REPETITIONS):
        log_weights = k * rng.exponential(size=size)
        tail = fit_tail(log_weights)
        assert tail is not None
        missing = -np.log(1 - k) - np.log(np.exp(log_weights).mean())
        # Or two of the standard errors that the bootstrap knows.
        known = np.exp(log_weights).std() / np.exp(log_weights).mean() / np.sqrt(size)
        within += missing <= max(tail.hidden_kT, 2 * known)
    assert within / REPETITIONS >= 0.93


def test_a_light_tail_hides_little() -> None:
    log_weights = 0.3 * np.random.default_rng(0).standard_normal(10_000)
    tail = fit_tail(log_weights)
    assert tail is not None
    assert tail.hidden_kT < 0.01
    assert fit_tail(np.zeros(1000)).hidden_kT == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [200, 3000])
def test_tails_without_a_mean_are_told_from_those_with_one(size: int) -> None:
    rng = np.random.default_rng(1)

    def share_without_mean(k: float) -> float:
        tails = [fit_tail(k * rng.exponential(size=size)) for _ in range(REPETITIONS // 3)]
        return float(np.mean([tail.no_mean_probability > 0.5 for tail in tails if tail]))

    assert share_without_mean(0.3) < 0.02
    assert share_without_mean(1.6) > 0.8


def test_samples_that_stand_for_many_are_worth_less_than_as_many_of_their_own() -> None:
    rng = np.random.default_rng(2)
    gains = []
    for _ in range(REPETITIONS // 3):
        log_weights = 0.7 * rng.exponential(size=4000)
        whole, part = fit_tail(log_weights), fit_tail(log_weights[:1000], np.full(1000, 4.0))
        assert whole
        assert part
        gains.append((whole.hidden_kT, part.hidden_kT))
    whole_kT, part_kT = np.median(gains, axis=0)
    assert part_kT > 1.5 * whole_kT


def test_the_largest_count_most_for_the_mean() -> None:
    """Where the heaviest are all known, light ones that stand for many hardly widen the fit."""
    rng = np.random.default_rng(3)
    wider = []
    for _ in range(REPETITIONS // 3):
        log_weights = np.sort(0.7 * rng.exponential(size=4000))[::-1]
        whole = fit_tail(log_weights)
        rows = np.concatenate([np.arange(150), rng.choice(np.arange(150, 4000), 770, False)])
        part = fit_tail(log_weights[rows], np.r_[np.ones(150), np.full(770, 5.0)])
        assert whole
        assert part
        wider.append((whole.hidden_kT, part.hidden_kT))
    whole_kT, part_kT = np.median(wider, axis=0)
    assert part_kT < 1.5 * whole_kT
