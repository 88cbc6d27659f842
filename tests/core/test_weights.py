"""Weights against Gaussians of known effective sample size, and exact Pareto tails."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy import stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.tails import generalised_pareto_shape
from bnce_dist.core.weights import Weights, log_weights


def gaussian_log_weights(num_samples, proposal_sd, seed=0):
    """Weights of N(0, sd^2) samples towards N(0, 1), with an arbitrary constant."""
    x = proposal_sd * np.random.default_rng(seed).standard_normal(num_samples)
    return log_weights(0.5 * x**2 + 37.0, stats.norm(0, proposal_sd).logpdf(x))


def test_ess_of_a_gaussian_is_the_closed_form():
    """E[w]^2 / E[w^2] = sqrt(2 s^2 - 1) / s^2 for a proposal of standard deviation s."""
    weights = Weights(gaussian_log_weights(200_000, 1.5))
    assert weights.ess_fraction == pytest.approx(math.sqrt(2 * 2.25 - 1) / 2.25, abs=0.005)
    assert weights.ess == pytest.approx(200_000 * weights.ess_fraction)
    assert weights.normalised.sum() == pytest.approx(1)


def test_weights_are_float64_whatever_came_in():
    u = torch.tensor([1e6, 1e6 + 1], dtype=torch.float32, requires_grad=True)
    values = log_weights(u, torch.zeros(2))
    assert values.dtype == np.float64
    assert Weights(values).normalised[0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_impossible_samples_are_counted_and_weigh_nothing():
    weights = Weights(log_weights([0.0, math.inf, 0.0], [0.0, 0.0, 0.0]))
    assert weights.num_rejected == 1
    assert weights.normalised.tolist() == pytest.approx([0.5, 0, 0.5])
    assert weights.ess == pytest.approx(2)


@pytest.mark.parametrize(
    ("u", "log_density", "message"),
    [
        ([math.nan, 0.0], [0.0, 0.0], "1 others among 2"),
        ([-math.inf, 0.0], [0.0, 0.0], "1 others among 2"),
        ([0.0, 0.0], [0.0, -math.inf], "1 others among 2"),
        ([0.0, 0.0], [0.0], r"shapes \(2,\) and \(1,\)"),
    ],
)
def test_unusable_input_is_refused(u, log_density, message):
    with pytest.raises(InputError, match=message):
        log_weights(u, log_density)


@pytest.mark.parametrize("values", [[], [-math.inf], [math.nan, 0.0], [math.inf, 0.0], [[0.0]]])
def test_weights_without_a_finite_total_are_refused(values):
    with pytest.raises(InputError, match="weights"):
        Weights(np.array(values))


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_shape_of_exact_pareto_samples(k):
    samples = stats.genpareto(k, scale=3.0).rvs(4000, random_state=1)
    standard_error = (1 + k) / math.sqrt(4000)
    assert generalised_pareto_shape(samples) == pytest.approx(k, abs=3 * standard_error)
    maximum_likelihood, _, _ = stats.genpareto.fit(samples, floc=0)
    assert generalised_pareto_shape(samples) == pytest.approx(maximum_likelihood, abs=0.02)


@pytest.mark.parametrize("proposal_sd", [0.6, 0.8])
def test_pareto_k_of_a_narrow_gaussian_proposal(proposal_sd):
    """P(w > y) ~ y^(-1/k) with k = 1 - s^2 (up to a slowly varying factor that lowers the fit)."""
    k = Weights(gaussian_log_weights(100_000, proposal_sd)).pareto_k
    assert 1 - proposal_sd**2 - 0.25 < k < 1 - proposal_sd**2 + 0.1


def test_pareto_k_without_a_tail():
    assert Weights(np.zeros(1000)).pareto_k == 0
    with pytest.raises(InputError, match="draw more samples"):
        _ = Weights(np.random.default_rng(0).standard_normal(12)).pareto_k


def test_clipping_lowers_the_top_and_reports_the_price():
    values = np.log(np.array([1.0, 2.0, 3.0, 94.0]))
    clipped, report = Weights(values).clipped(0.25)
    assert np.exp(clipped.log_weights).tolist() == pytest.approx([1, 2, 3, 3])
    assert report.num_clipped == 1
    assert report.log_threshold == pytest.approx(math.log(3))
    assert report.weight_removed == pytest.approx(0.91)
    json.dumps(asdict(report))
    untouched, report = Weights(values).clipped(0.0)
    assert np.array_equal(untouched.log_weights, values)
    assert report.num_clipped == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.9, math.nan])
def test_clip_fraction_is_checked(fraction):
    with pytest.raises(InputError, match="clip fraction"):
        Weights(np.array([0.0, -math.inf, 1.0])).clipped(fraction)


def test_tempered_weights_have_the_power_that_the_closed_form_says():
    """Of log weights of variance s^2, those to the power b keep a share exp(-b^2 s^2)."""
    sd, share = 2.0, 0.3
    log_weights = sd * np.random.default_rng(0).standard_normal(20_000)
    tempered = Weights(log_weights).tempered(share * len(log_weights))
    assert tempered.ess_fraction == pytest.approx(share, rel=0.01)
    power = tempered.log_weights[0] / log_weights[0]
    assert power == pytest.approx(math.sqrt(-math.log(share)) / sd, rel=0.03)
    np.testing.assert_allclose(tempered.log_weights, power * log_weights)


def test_weights_that_are_even_enough_stay_and_rejected_samples_stay_rejected():
    weights = Weights(np.array([0.0, 1.0, -np.inf, 0.5]))
    assert weights.tempered(2.0) is weights
    tempered = weights.tempered(2.99)
    assert tempered.ess >= 2.99
    assert np.isneginf(tempered.log_weights[2])
    with pytest.raises(InputError, match="less than the 3 positive ones, got 3"):
        weights.tempered(3)
