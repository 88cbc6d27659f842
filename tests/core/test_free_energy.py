"""Free-energy differences against a Gaussian probability and the spread of fresh ensembles."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.free_energy import delta_f, shift_by_folds

BOUNDARY = 1.0
TRUTH = math.log(stats.norm.cdf(BOUNDARY) / stats.norm.sf(BOUNDARY))


def estimate(sample_seed, num_samples=2000, **options):
    """A standard normal target seen through N(0, 1.5^2) samples; the state is x > BOUNDARY."""
    x = 1.5 * np.random.default_rng(sample_seed).standard_normal(num_samples)
    log_weights = -0.5 * x**2 - stats.norm(0, 1.5).logpdf(x)
    return delta_f(log_weights, x > BOUNDARY, **options)


def test_value_is_the_log_ratio_of_probabilities():
    result = estimate(0, 200_000)
    assert result.value_kT == pytest.approx(TRUTH, abs=4 * result.stderr_kT)
    assert result.stderr_kT < 0.01
    assert result.weight_in_state == pytest.approx(stats.norm.sf(BOUNDARY), abs=0.002)
    assert result.value_kT == pytest.approx(
        -math.log(result.weight_in_state / (1 - result.weight_in_state))
    )
    json.dumps(asdict(result))


def test_error_and_interval_describe_fresh_ensembles():
    results = [estimate(seed) for seed in range(200)]
    spread = np.std([result.value_kT for result in results])
    assert np.mean([result.stderr_kT for result in results]) == pytest.approx(spread, rel=0.15)
    covered = [result.interval_kT[0] < TRUTH < result.interval_kT[1] for result in results]
    assert 0.89 < np.mean(covered) < 0.99


def test_the_complement_has_the_opposite_sign():
    inside = np.arange(1000) < 100
    forward, backward = delta_f(np.zeros(1000), inside), delta_f(np.zeros(1000), ~inside)
    assert forward.value_kT == pytest.approx(math.log(9))
    assert backward.value_kT == pytest.approx(-math.log(9))
    assert forward.num_in_state == 100
    # Standard error of a log odds ratio: 1 / sqrt(n p (1 - p)).
    assert forward.stderr_kT == pytest.approx(1 / math.sqrt(90), rel=0.15)


def test_replicates_depend_on_the_seed_only():
    assert estimate(0, seed=5) == estimate(0, seed=5)
    assert estimate(0, seed=5).stderr_kT != estimate(0, seed=6).stderr_kT


@pytest.mark.parametrize("num_inside", [0, 1, 1000])
def test_an_empty_side_has_a_clear_error(num_inside):
    with pytest.raises(InputError, match=f"{num_inside} of 1000 samples inside"):
        delta_f(np.zeros(1000), np.arange(1000) < num_inside)


@pytest.mark.parametrize("in_state", [np.zeros(10), np.zeros(9, dtype=bool)])
def test_states_are_checked(in_state):
    with pytest.raises(InputError, match="in_state"):
        delta_f(np.zeros(10), in_state)


def test_signs_repair_what_a_folding_sampler_counts_twice():
    """The map x + 1.5 sin(2 x) folds where its slope 1 + 3 cos(2 x) is negative."""
    noise = 1.5 * np.random.default_rng(1).standard_normal(400_000)
    x, slope = noise + 1.5 * np.sin(2 * noise), 1 + 3 * np.cos(2 * noise)
    log_density = stats.norm(0, 1.5).logpdf(noise) - np.log(np.abs(slope))
    log_weights, in_state = stats.norm.logpdf(x) - log_density, x > BOUNDARY
    unsigned = delta_f(log_weights, in_state)
    assert abs(unsigned.value_kT - TRUTH) > 10 * unsigned.stderr_kT
    signed = unsigned.value_kT + shift_by_folds(log_weights, in_state, slope < 0)
    assert signed == pytest.approx(TRUTH, abs=6 * unsigned.stderr_kT)
    assert shift_by_folds(log_weights, in_state, np.zeros_like(in_state)) == 0.0
