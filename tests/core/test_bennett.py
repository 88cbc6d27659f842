"""Bennett's ratio against Gaussian integrals and the spread of repetitions."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from bnce_dist.core.bennett import Frames, bennett_delta_f, bennett_log_ratio
from bnce_dist.core.errors import InputError

WIDTH = 1.6


def log_weights(x):
    """Unnormalised standard normal over N(0, WIDTH^2), whose log ratio is ln sqrt(2 pi)."""
    return -0.5 * x**2 - stats.norm(0, WIDTH).logpdf(x)


def ratio(seed, num_samples=400, num_frames=200, repeats=1):
    rng = np.random.default_rng(seed)
    samples = log_weights(WIDTH * rng.standard_normal(num_samples))
    frames = np.repeat(log_weights(rng.standard_normal(num_frames)), repeats)
    return bennett_log_ratio(samples, frames, np.ones(len(frames)), num_independent=num_frames)


def test_the_log_ratio_is_that_of_gaussian_integrals_and_its_error_the_spread():
    results = [ratio(seed) for seed in range(300)]
    values = np.array([result.value_kT for result in results])
    truth = 0.5 * math.log(2 * math.pi)
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(300))
    assert np.mean([result.stderr_kT for result in results]) == pytest.approx(
        values.std(), rel=0.15
    )


def test_repeated_frames_are_worth_nothing_more():
    once, often = ratio(0), ratio(0, repeats=7)
    assert often.value_kT == pytest.approx(once.value_kT, abs=1e-9)
    assert often.stderr_kT == pytest.approx(once.stderr_kT, abs=1e-9)


def test_frames_of_a_biased_simulation_count_by_their_weight():
    rng = np.random.default_rng(3)
    samples = log_weights(WIDTH * rng.standard_normal(50_000))
    biased = 1.3 * rng.standard_normal(50_000)
    weights = np.exp(stats.norm.logpdf(biased) - stats.norm(0, 1.3).logpdf(biased))
    result = bennett_log_ratio(samples, log_weights(biased), weights, num_independent=25_000)
    assert result.value_kT == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.02)


def test_frames_of_both_sides_narrow_a_free_energy_that_is_known():
    rng = np.random.default_rng(5)
    sd, shift, values, errors, alone = 2.0, -3.0, [], [], []
    for _ in range(120):
        inside = rng.random(2600) < 0.28
        own = sd * rng.standard_normal(2600) + np.where(inside, shift, 0.0)
        # Under the target itself a normal log weight is the same normal, moved by its variance.
        there = np.arange(440) < 220
        frames = sd * rng.standard_normal(440) + sd**2 + np.where(there, shift, 0.0)
        result = bennett_delta_f(own, inside, Frames(frames, np.ones(440), there, (220.0, 220.0)))
        values.append(result.value_kT)
        errors.append(result.stderr_kT)
        alone.append(logsumexp(own[~inside]) - logsumexp(own[inside]))
    truth = math.log(0.72 / 0.28) - shift
    # Samples without a density say how many there are on each side, and narrow it further.
    few = np.where(np.arange(2600) < 1300, own, np.nan)
    of_few = bennett_delta_f(few, inside, Frames(frames, np.ones(440), there, (220.0, 220.0)))
    alone_few = bennett_delta_f(
        own[:1300], inside[:1300], Frames(frames, np.ones(440), there, (220.0, 220.0))
    )
    assert result.stderr_kT < of_few.stderr_kT < alone_few.stderr_kT
    assert of_few.value_kT == pytest.approx(truth, abs=4 * of_few.stderr_kT)
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / math.sqrt(120))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)
    assert np.std(values) < 0.75 * np.std(alone)


@pytest.mark.parametrize(
    ("samples", "frames", "count"),
    [
        (np.zeros(5), np.zeros(20), 20),
        (np.zeros(20), np.zeros(20), 5),
        (np.zeros(20), np.zeros(20), 30),
        (np.full(20, np.nan), np.zeros(20), 20),
        (np.full(20, -np.inf), np.zeros(20), 20),
    ],
)
def test_too_little_to_compare_is_refused(samples, frames, count):
    with pytest.raises(InputError, match="Bennett"):
        bennett_log_ratio(samples, frames, np.ones(len(frames)), num_independent=count)


@pytest.mark.parametrize("gap", [100.0, 3000.0])
def test_ends_that_do_not_overlap_are_refused(gap):
    noise = np.random.default_rng(0).normal(size=(2, 50))
    with pytest.raises(InputError, match=r"samples and frames that overlap, got an overlap worth"):
        bennett_log_ratio(noise[0] - gap, noise[1], np.ones(50), num_independent=20)
