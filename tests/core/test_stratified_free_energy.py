"""The stratified ratio estimator against closed forms; coverage of its intervals."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import select_for_exact
from bnce_dist.core.free_energy import (
    delta_f,
    exact_populations,
    stratified_delta_f,
    stratified_log_weights,
)
from bnce_dist.core.tails import fit_tail

SHARE, SHIFT = 0.28, -3.0


def draw(seed, num_samples=4000, sd=0.9, error=0.8, bias=0.3):
    """Normal log weights, and approximate ones that are wrong by noise and inside by a bias."""
    rng = np.random.default_rng(seed)
    inside = rng.random(num_samples) < SHARE
    exact = sd * rng.standard_normal(num_samples) + np.where(inside, SHIFT, 0.0)
    wrong = error * rng.standard_normal(num_samples) + np.where(inside, bias, 0.0)
    return exact + wrong, exact, inside


TRUTH = math.log((1 - SHARE) / SHARE) - SHIFT


def known(approximate, exact, inside, num_random, num_weighted):
    subset = select_for_exact(approximate, inside, num_random=num_random, num_weighted=num_weighted)
    partly = np.full(len(exact), np.nan)
    partly[subset.rows] = exact[subset.rows]
    return partly, {"num_random": num_random, "inclusion": subset.inclusion}


def estimate(seed, num_random=500, num_weighted=500, num_bootstrap=100, **options):
    approximate, exact, inside = draw(seed, **options)
    partly, chosen = known(approximate, exact, inside, num_random, num_weighted)
    return stratified_delta_f(
        approximate, partly, inside, **chosen, num_bootstrap=num_bootstrap, seed=seed
    )


def test_the_first_are_chosen_and_of_the_others_the_heaviest_for_certain():
    log_weights = np.log([1.0, 1.0, 8.0, 1e-9, 4.0, 1.0, 1.0, 1.0])
    log_weights[3] = -np.inf
    inside = np.array([True, False, True, True, False, False, True, True])
    subset = select_for_exact(log_weights, inside, num_random=2, num_weighted=4)
    # One of two on each side has most of the weight, and one of the light ones comes along.
    assert {0, 1, 2, 4} < set(subset.rows) < {0, 1, 2, 4, 5, 6, 7}
    light, certain = 0.25 + 0.75 / 2, 1.0
    expected = [light, 1.0, certain, 0.25, certain, 1.0, light, light]
    np.testing.assert_allclose(subset.inclusion, expected)
    everything = select_for_exact(log_weights, inside, num_random=8, num_weighted=0)
    assert everything.rows.tolist() == list(range(8))
    np.testing.assert_array_equal(everything.inclusion, 1.0)
    # A sample without weight is never worth it, and a side that has fewer gives all it has.
    rest = select_for_exact(log_weights, inside, num_random=0, num_weighted=40)
    assert rest.rows.tolist() == [0, 1, 2, 4, 5, 6, 7]
    # However little some weigh, a side gives as many as are asked for.
    spread = np.where(np.arange(8) % 2 == 0, 0.0, -np.arange(8) * 1e4)
    assert len(select_for_exact(spread, inside, num_random=0, num_weighted=8).rows) == 4 + 3
    nothing = select_for_exact(np.full(8, -np.inf), inside, num_random=2, num_weighted=4)
    assert nothing.rows.tolist() == [0, 1]
    with pytest.raises(InputError, match="0 to 8 at random"):
        select_for_exact(log_weights, inside, num_random=9, num_weighted=0)


def test_samples_are_chosen_as_often_as_is_said():
    rng, size, repetitions = np.random.default_rng(0), 400, 3000
    log_weights, inside = 1.5 * rng.standard_normal(size), np.arange(size) % 3 == 0
    counts, said = np.zeros(size), np.zeros(size)
    for _ in range(repetitions):
        order = rng.permutation(size)
        subset = select_for_exact(
            log_weights[order], inside[order], num_random=100, num_weighted=80
        )
        counts[order[subset.rows]] += 1
        said[order] += subset.inclusion
        assert len(subset.rows) == 180
    difference = (counts - said) / repetitions
    assert np.abs(difference).max() < 4 * math.sqrt(0.25 / repetitions)
    by_weight = np.argsort(log_weights)
    for part in np.split(by_weight, 4):  # The heaviest are chosen three times as often.
        assert abs(difference[part].mean()) < 0.003
    assert counts[by_weight[-100:]].mean() > 2 * counts[by_weight[:100]].mean()


def test_drawing_by_weight_makes_the_error_smaller_than_as_many_at_random():
    options = {"error": 1.4, "num_samples": 8000}
    by_weight = [estimate(s, 500, 500, 2, **options).value_kT for s in range(150)]
    at_random = [estimate(s, 1000, 0, 2, **options).value_kT for s in range(150)]
    truth_and_noise = [
        delta_f(exact, inside, num_bootstrap=2).value_kT
        for _, exact, inside in (draw(s, **options) for s in range(150))
    ]
    # Of the exact estimates by all samples, which know no learned density.
    errors = [np.std(np.subtract(values, truth_and_noise)) for values in (by_weight, at_random)]
    assert errors[0] < 0.85 * errors[1]


def test_an_impossible_choice_is_refused():
    approximate, exact, inside = draw(0)
    partly, chosen = known(approximate, exact, inside, 500, 500)
    for inclusion in (np.zeros(len(exact)), chosen["inclusion"][:-1]):
        with pytest.raises(InputError, match="inclusion"):
            stratified_delta_f(approximate, partly, inside, num_random=500, inclusion=inclusion)


def test_exact_weights_undo_the_bias_of_approximate_ones_and_narrow_their_own_bar():
    values = np.array([estimate(seed).value_kT for seed in range(100)])
    assert values.mean() == pytest.approx(TRUTH, abs=4 * values.std() / 10)
    alone = []
    for seed in range(100):
        approximate, exact, inside = draw(seed)
        alone.append(delta_f(exact[:1000], inside[:1000], num_bootstrap=2).value_kT)
        assert abs(delta_f(approximate, inside, num_bootstrap=2).value_kT - TRUTH) > 0.05
    assert values.std() < np.std(alone)


@pytest.mark.parametrize("sd", [0.9, 1.5])
def test_error_and_interval_describe_repetitions(sd):
    results = [estimate(seed, sd=sd) for seed in range(200)]
    values = np.array([result.value_kT for result in results])
    errors = np.array([result.stderr_kT for result in results])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=0.2)
    truth = TRUTH  # The same tail on both sides.
    covered = np.mean([r.interval_kT[0] < truth < r.interval_kT[1] for r in results])
    assert 0.91 <= covered <= 0.995


def test_with_every_sample_exact_it_is_the_plain_estimate():
    approximate, exact, inside = draw(0)
    result = stratified_delta_f(approximate, exact, inside, num_random=len(exact), seed=3)
    plain = delta_f(exact, inside, num_bootstrap=500, seed=3)
    assert result.value_kT == pytest.approx(plain.value_kT, abs=1e-12)
    assert result.stderr_kT == pytest.approx(plain.stderr_kT, rel=1e-9)
    weights = stratified_log_weights(approximate, exact, inside, num_random=len(exact))
    np.testing.assert_allclose(weights, exact)


def test_the_weights_give_the_number():
    approximate, exact, inside = draw(1)
    partly, chosen = known(approximate, exact, inside, 500, 500)
    weights = stratified_log_weights(approximate, partly, inside, **chosen)
    result = stratified_delta_f(approximate, partly, inside, **chosen)
    assert logsumexp(weights[~inside]) - logsumexp(weights[inside]) == pytest.approx(
        result.value_kT, abs=1e-10
    )
    # The heaviest are certain to be exact, and are.
    for side in (inside, ~inside):
        assert (weights == partly)[side][np.argmax(approximate[side])]


def test_the_correction_of_each_side_is_the_error_that_was_put_in():
    result = estimate(0, num_samples=40_000, num_random=10_000, num_weighted=10_000, error=0.3)
    # The mean of exp(noise) is exp(0.3^2 / 2) on both sides.
    assert result.rest.correction_kT == pytest.approx(-0.045, abs=0.02)
    assert result.state.correction_kT == pytest.approx(-0.345, abs=0.02)
    repeated = [estimate(seed) for seed in range(60)]
    spread = np.std([result.state.correction_kT for result in repeated])
    claimed = np.mean([result.state.correction_stderr_kT for result in repeated])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_a_heavy_tail_on_one_side_shows_there_and_lengthens_that_end():
    rng = np.random.default_rng(0)
    inside = np.arange(20_000) % 4 == 0
    exact = np.where(inside, 0.75 * rng.exponential(size=20_000), 0.3 * rng.standard_normal(20_000))
    result = delta_f(exact, inside)
    assert result.state.pareto_k == pytest.approx(0.75, abs=0.2)
    assert result.rest.pareto_k < 0.3
    low, high = result.interval_kT
    # More weight in the state would lower delta_f.
    assert result.value_kT - low > 1.3 * (high - result.value_kT)


def test_a_population_stands_for_its_side_and_has_the_tail_that_is_judged():
    approximate, exact, inside = draw(4, num_samples=40_000, sd=1.2)
    partly, chosen = known(approximate, exact, inside, 2000, 2000)
    result = stratified_delta_f(approximate, partly, inside, **chosen)
    populations = exact_populations(approximate, partly, inside, **chosen)
    weights = stratified_log_weights(approximate, partly, inside, **chosen)
    for side, of_side, judged in zip(
        (inside, ~inside), populations, (result.state, result.rest), strict=True
    ):
        log_weights, counts = of_side
        assert len(log_weights) < side.sum() == pytest.approx(counts.sum(), rel=0.1)
        total = logsumexp(log_weights, b=counts)
        assert total == pytest.approx(logsumexp(weights[side]), abs=1e-9)
        assert log_weights.max() == np.nanmax(partly[side])
        mean = logsumexp(log_weights, b=counts) - math.log(counts.sum())
        truth = logsumexp(exact[side]) - math.log(side.sum())
        assert mean == pytest.approx(truth, abs=0.15)
        assert fit_tail(log_weights, counts).shape == pytest.approx(judged.pareto_k)
    # The two sides are 3 nats apart.
    assert populations[0][0].mean() < populations[1][0].mean() - 2


@pytest.mark.parametrize("lost", [1.0, 60.0])
def test_few_light_samples_of_little_weight_stand_for_no_more_than_there_are(lost):
    """All of a side is exact but one sample, below which the others weigh next to nothing."""
    approximate, exact, inside = draw(5, num_samples=400)
    rows = np.flatnonzero(inside)
    order = rows[np.argsort(-approximate[rows])]
    unknown, below = order[20], order[21:]
    approximate[below] -= lost
    exact[below] -= lost
    partly = exact.copy()
    partly[unknown] = np.nan
    chosen = {"num_random": 0, "inclusion": np.full(400, 0.5)}
    state, _ = exact_populations(approximate, partly, inside, **chosen)
    assert 0.5 <= state[1].sum() / len(rows) <= 2.0
    result = stratified_delta_f(approximate, partly, inside, **chosen)
    known = stratified_delta_f(approximate, exact, inside, **chosen)
    assert result.value_kT == pytest.approx(known.value_kT, abs=0.2)
    # What is not known of the one that is left out may make the tail look heavier, not lighter.
    assert result.state.pareto_k > known.state.pareto_k - 0.4
    assert math.isfinite(result.interval_kT[0])


def test_a_replicate_is_never_empty():
    inside = np.arange(1000) < 3
    result = delta_f(np.zeros(1000), inside)
    assert result.value_kT == pytest.approx(math.log(997 / 3))
    assert math.isfinite(result.stderr_kT)


def test_a_side_with_few_light_samples_and_none_of_them_exact_is_repaired():
    approximate, exact, inside = draw(2)
    rows = np.flatnonzero(inside)
    order = rows[np.argsort(-approximate[rows])]
    partly = np.full(len(exact), np.nan)
    partly[:800] = exact[:800]
    partly[order[:-5]] = exact[order[:-5]]
    partly[order[-5:]] = np.nan
    result = stratified_delta_f(approximate, partly, inside, num_random=800)
    assert result.value_kT == pytest.approx(TRUTH, abs=5 * result.stderr_kT)


def test_what_cannot_be_estimated_is_said():
    approximate, exact, inside = draw(3, num_samples=200)
    partly = np.full(200, np.nan)
    partly[:12] = exact[:12]
    with pytest.raises(InputError, match="exact log densities in the state"):
        stratified_delta_f(approximate, partly, inside, num_random=12)
    spoilt = approximate.copy()
    spoilt[5] = np.nan
    with pytest.raises(InputError, match="NaN or inf"):
        stratified_delta_f(spoilt, exact, inside, num_random=200)
    with pytest.raises(InputError, match=r"weights in the state.*all of weight zero"):
        delta_f(np.where(inside, -np.inf, exact), inside)
    with pytest.raises(InputError, match="log_weights_exact"):
        stratified_delta_f(approximate, exact[:5], inside, num_random=5)
    impossible = np.where(inside, -np.inf, exact)
    with pytest.raises(InputError, match="exact weights on one side"):
        stratified_delta_f(approximate, impossible, inside, num_random=200)
