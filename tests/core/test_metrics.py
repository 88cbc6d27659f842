"""Distances against closed forms; profiles against a von Mises density."""

import math

import numpy as np
import pytest
from scipy import stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.metrics import (
    free_energy_profile,
    kl_divergence_on_grid,
    log_normaliser_on_grid,
    torus_wasserstein_2,
    wasserstein_2,
)

LINE = np.linspace(-12, 12, 4001)
CELL = LINE[1] - LINE[0]


def test_kl_of_gaussians_is_the_closed_form():
    log_p, log_q = stats.norm(0.5, 1.0).logpdf(LINE), stats.norm(0.0, 1.5).logpdf(LINE)
    expected = math.log(1.5) + (1 + 0.25) / (2 * 2.25) - 0.5
    assert kl_divergence_on_grid(log_p, log_q, CELL) == pytest.approx(expected)
    # A wrong constant is invisible after normalisation and is the whole error without it.
    assert kl_divergence_on_grid(log_p, log_q + 3, CELL) == pytest.approx(expected)
    absolute = kl_divergence_on_grid(log_p, log_q + 3, CELL, normalise=False)
    assert absolute == pytest.approx(expected - 3)
    assert log_normaliser_on_grid(log_q + 3, CELL) == pytest.approx(3)


def test_kl_counts_the_support_of_the_truth_only():
    log_p = np.where(abs(LINE) < 1, -math.log(2), -np.inf)
    log_q = np.where(abs(LINE) < 2, -math.log(4), -np.inf)
    assert kl_divergence_on_grid(log_p, log_q, CELL) == pytest.approx(math.log(2), abs=2e-3)
    assert kl_divergence_on_grid(log_q, log_p, CELL) == math.inf


def test_wasserstein_of_shifted_and_scaled_samples():
    x = np.random.default_rng(0).standard_normal(1000)
    assert wasserstein_2(x, x[::-1] + 2.5) == pytest.approx(2.5)
    assert wasserstein_2(x, 3 * x) == pytest.approx(2 * math.sqrt(np.mean(x**2)))


def test_wasserstein_does_not_see_values_without_weight():
    x, weights = np.arange(10.0), np.full(10, 0.1)
    assert np.cumsum(weights)[-1] < 1, "what rounding leaves to a value without weight"
    expected = wasserstein_2(x, [0.0], x_weights=weights)
    with_outlier = wasserstein_2(np.append(x, 1e20), [0.0], x_weights=np.append(weights, 0.0))
    assert with_outlier == pytest.approx(expected)


def test_wasserstein_weights_are_repetitions():
    rng = np.random.default_rng(1)
    x, y, counts = rng.standard_normal(30), rng.standard_normal(41) + 1, rng.integers(0, 5, 30)
    repeated = np.repeat(x, counts)
    assert wasserstein_2(x, y, x_weights=counts) == pytest.approx(wasserstein_2(repeated, y))
    # Squared distances of uniform levels: an independent route through explicit quantiles.
    levels = (np.arange(200_000) + 0.5) / 200_000
    quantiles = [np.quantile(values, levels, method="inverted_cdf") for values in (repeated, y)]
    brute_force = math.sqrt(np.mean((quantiles[0] - quantiles[1]) ** 2))
    assert wasserstein_2(repeated, y) == pytest.approx(brute_force, rel=1e-3)


def test_torus_distance_takes_the_short_way_round():
    x = np.full((50, 2), math.pi - 0.1)
    y = np.column_stack([np.full(50, -math.pi + 0.2), np.full(50, math.pi - 0.5)])
    assert torus_wasserstein_2(x, y, num_points=50) == pytest.approx(0.5)


def test_torus_distance_follows_the_weights():
    x = np.array([[0.0], [1.0]])
    y = np.array([[0.0]])
    distance = torus_wasserstein_2(x, y, x_weights=[0.75, 0.25], num_points=400)
    assert distance == pytest.approx(0.5)


def test_profile_of_a_reweighted_uniform_angle():
    """Uniform angles with von Mises weights give -ln of the von Mises density."""
    angles = np.random.default_rng(0).uniform(-math.pi, math.pi, 100_000)
    density = stats.vonmises(1.5, loc=0.4)
    profile = free_energy_profile(angles, density.pdf(angles), num_bins=36, num_bootstrap=100)
    expected = -density.logpdf(profile.centres)
    np.testing.assert_allclose(profile.value_kT, expected, atol=0.1)
    inside = (profile.lower_kT < expected) & (expected < profile.upper_kT)
    assert inside.mean() > 0.8
    assert (profile.upper_kT - profile.lower_kT).max() < 0.2


def test_profile_of_empty_bins_is_infinite_not_nan():
    profile = free_energy_profile(np.full(100, 0.1), num_bins=10, num_bootstrap=10)
    assert np.isposinf(profile.value_kT).sum() == 9
    assert not np.isnan([profile.value_kT, profile.lower_kT, profile.upper_kT]).any()


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [math.nan, 1.0], [1.0]])
def test_weights_are_checked(weights):
    with pytest.raises(InputError, match="2 finite weights"):
        wasserstein_2([0.0, 1.0], [0.0], x_weights=weights)
