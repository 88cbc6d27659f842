"""What a tail may hide, against tails of known mean."""

import numpy as np
import pytest

from bnce_dist.core.tails import fit_tail

REPETITIONS = 300


@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("k", [0.3, 0.6, 0.8])
def test_the_true_mean_is_rarely_above_what_the_tail_may_hide(k: float, size: int) -> None:
    """A Pareto variable of shape k has the mean 1 / (1 - k)."""
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(REPETITIONS):
        log_weights = k * rng.exponential(size=size)
        tail = fit_tail(log_weights)
        assert tail is not None
        missing = -np.log(1 - k) - np.log(np.exp(log_weights).mean())
        # Of the error that the bootstrap knows, two standard errors.
        known = np.exp(log_weights).std() / np.exp(log_weights).mean() / np.sqrt(size)
        within += missing <= tail.hidden_kT + 2 * known
    assert within / REPETITIONS >= 0.9


def test_a_light_tail_hides_little() -> None:
    log_weights = 0.3 * np.random.default_rng(0).standard_normal(10_000)
    tail = fit_tail(log_weights)
    assert tail is not None
    assert tail.hidden_kT < 0.01
    assert fit_tail(np.zeros(1000)).hidden_kT == 0  # type: ignore[union-attr]
