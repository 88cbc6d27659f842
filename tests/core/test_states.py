"""Free energies of several states against quadrature, and their covariance against repetition."""

import math

import numpy as np
import pytest
from scipy import stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import select_for_exact
from bnce_dist.core.free_energy import stratified_delta_f
from bnce_dist.core.states import (
    REST,
    StateFreeEnergies,
    replica_state_free_energies,
    state_free_energies,
)

# The target: two normal distributions; states are intervals, whose weights are known.
SHARES, MEANS, SDS = (0.7, 0.3), (-1.0, 1.5), (0.6, 0.4)
STATES = {"left": (-4.0, 0.0), "right": (1.0, 2.0)}
PROPOSAL_SD, MODEL_BIAS = 1.6, 0.8


def log_target(x: np.ndarray) -> np.ndarray:
    parts = [
        np.log(p) + stats.norm.logpdf(x, m, s) for p, m, s in zip(SHARES, MEANS, SDS, strict=True)
    ]
    return np.logaddexp(*parts)


def weight(lower: float, upper: float) -> float:
    return sum(
        p * (stats.norm.cdf(upper, m, s) - stats.norm.cdf(lower, m, s))
        for p, m, s in zip(SHARES, MEANS, SDS, strict=True)
    )


TRUE_WEIGHTS = [*(weight(*edges) for edges in STATES.values())]
TRUE_WEIGHTS.append(1 - sum(TRUE_WEIGHTS))
TRUTH = -np.log(TRUE_WEIGHTS)


def draw(seed: int, num_samples: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return samples, their log weights by a density that is wrong, and by the right one."""
    rng = np.random.default_rng(seed)
    x = PROPOSAL_SD * rng.standard_normal(num_samples)
    exact = log_target(x) - stats.norm.logpdf(x, scale=PROPOSAL_SD)
    wrong = MODEL_BIAS * (x > 0.5) + 0.3 * rng.standard_normal(num_samples)
    return x, exact + wrong, exact


def inside(x: np.ndarray) -> dict[str, np.ndarray]:
    return {name: (x > lower) & (x < upper) for name, (lower, upper) in STATES.items()}


def estimate(seed: int) -> StateFreeEnergies:
    """Exact weights are of samples that were chosen by other weights and for another state."""
    x, approximate, exact = draw(seed)
    others = approximate + 0.5 * np.random.default_rng([seed, 1]).standard_normal(len(x))
    subset = select_for_exact(others, x > 0.5, num_random=300, num_weighted=300)
    partly = np.full(len(x), np.nan)
    partly[subset.rows] = exact[subset.rows]
    options = {"num_random": 300, "inclusion": subset.inclusion}
    return state_free_energies(
        approximate, partly, inside(x), **options, num_bootstrap=200, seed=seed
    )


@pytest.fixture(scope="module")
def repeated() -> list[StateFreeEnergies]:
    return [estimate(seed) for seed in range(300)]


def test_values_are_those_of_the_target(repeated: list[StateFreeEnergies]) -> None:
    assert repeated[0].names == ("left", "right", REST)
    values = np.array([found.free_energies_kT for found in repeated])
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - TRUTH) < 4 * error + 0.005).all()
    assert np.mean([found.weights for found in repeated], axis=0) == pytest.approx(
        TRUE_WEIGHTS, abs=0.005
    )
    for found in repeated[:5]:
        assert found.weights.sum() == pytest.approx(1.0)


def test_the_covariance_is_that_of_repetitions(repeated: list[StateFreeEnergies]) -> None:
    values = np.array([found.free_energies_kT for found in repeated])
    claimed = np.mean([found.covariance_kT2 for found in repeated], axis=0)
    scale = np.sqrt(np.outer(np.diag(claimed), np.diag(claimed)))
    # 300 repetitions know a variance to 8 %.
    assert np.abs((np.cov(values.T) - claimed) / scale).max() < 0.3
    # The states share one total: their errors are not independent.
    assert claimed[0, 1] / scale[0, 1] < -0.3


def test_errors_of_differences_are_those_of_repetitions(repeated: list[StateFreeEnergies]) -> None:
    differences = np.array([found.differences_kT for found in repeated])
    claimed = np.mean([found.difference_stderrs_kT for found in repeated], axis=0)
    np.testing.assert_allclose(differences.std(axis=0, ddof=1), claimed, rtol=0.2, atol=1e-12)
    naive = math.hypot(*repeated[0].stderrs_kT[:2])
    assert not math.isclose(claimed[0, 1], naive, rel_tol=0.1)
    np.testing.assert_allclose(differences[0], -differences[0].T)


def test_one_state_against_the_rest_is_delta_f() -> None:
    x, approximate, exact = draw(0)
    state = x > 1.0
    subset = select_for_exact(approximate, state, num_random=300, num_weighted=300)
    partly = np.full(len(x), np.nan)
    partly[subset.rows] = exact[subset.rows]
    options = {"num_bootstrap": 2000, "seed": 1}
    options |= {"num_random": 300, "inclusion": subset.inclusion}
    expected = stratified_delta_f(approximate, partly, state, **options)
    found = state_free_energies(approximate, partly, {"a": state}, **options)
    assert found.differences_kT[0, 1] == pytest.approx(expected.value_kT)
    assert found.weights[0] == pytest.approx(expected.weight_in_state)
    assert found.difference_stderrs_kT[0, 1] == pytest.approx(expected.stderr_kT, rel=0.06)
    assert found.evidence["a"].ess == pytest.approx(expected.state.ess)


def test_states_without_enough_have_no_number_and_belong_to_the_rest() -> None:
    x, approximate, exact = draw(0)
    far, few = x > 50.0, np.arange(len(x)) < 6
    broken = np.arange(len(x)) >= len(x) - 20
    approximate, exact = (np.where(broken, -np.inf, w) for w in (approximate, exact))
    left = (x < 0.0) & ~few & ~broken
    found = state_free_energies(
        approximate,
        exact,
        {"far": far, "left": left, "few": few, "broken": broken},
        num_random=len(x),
        num_bootstrap=50,
    )
    assert found.names == ("left", REST)
    assert found.weights.sum() == pytest.approx(1.0)
    faults = {name: evidence.fault for name, evidence in found.evidence.items()}
    assert faults["far"] == "no sample in it"
    assert "effective samples, fewer than 10" in str(faults["few"])
    assert faults["broken"] == "20 samples, none with a weight"
    assert faults["left"] is faults[REST] is None


def test_a_state_with_too_few_exact_densities_has_no_number() -> None:
    x, approximate, exact = draw(0)
    right = x > 1.0
    known = ~right | (np.cumsum(right) <= 4)
    partly = np.where(known, exact, np.nan)
    found = state_free_energies(
        approximate, partly, {"right": right}, num_random=len(x), num_bootstrap=50
    )
    assert found.evidence["right"].fault == "4 exact densities, fewer than 10"
    none = state_free_energies(
        approximate, np.where(right, np.nan, exact), {"right": right}, num_random=0
    )
    assert none.evidence["right"].fault == "0 exact densities, fewer than 10"


def test_a_state_whose_exact_densities_calibrate_nothing_has_no_number() -> None:
    """All random samples of it are broken; what has a weight was never looked at exactly."""
    x, approximate, exact = draw(0)
    right = x > 1.0
    broken = right & (np.cumsum(right) <= 40)
    approximate, exact = (np.where(broken, -np.inf, w) for w in (approximate, exact))
    partly = np.where(right & ~broken, np.nan, exact)
    found = state_free_energies(
        approximate, partly, {"right": right}, num_random=len(x), num_bootstrap=50
    )
    assert found.evidence["right"].fault == "no exact density that calibrates the learned ones"
    assert found.names == (REST,)


@pytest.mark.parametrize(
    ("shape", "num_inside", "num_exact"),
    [(0.9, 120, 2500), (1.1, 2000, 16_000)],
    ids=["hardly a tail", "a tail without a mean"],
)
def test_what_may_be_hidden_is_unknown_where_no_mean_is(
    shape: float, num_inside: int, num_exact: int
) -> None:
    """Pareto weights, of which too few are exact to show a tail, or whose mean is infinite."""
    rng = np.random.default_rng(8)
    logs = np.zeros(16_000)
    state = rng.permutation(len(logs)) < num_inside
    logs[state] = np.log1p(rng.pareto(1 / shape, num_inside))
    exact = np.where(np.arange(len(logs)) < num_exact, logs, np.nan)
    found = state_free_energies(logs, exact, {"a": state}, num_random=num_exact, num_bootstrap=50)
    assert found.names == ("a", REST)
    assert found.evidence["a"].hidden_kT is None
    # Weights that are all equal hide nothing.
    assert found.evidence[REST].hidden_kT == 0


def test_states_that_cover_everything_leave_no_rest() -> None:
    x, _, exact = draw(0)
    found = state_free_energies(exact, exact, {"a": x < 0, "b": x >= 0}, num_random=len(x))
    assert found.names == ("a", "b")
    assert REST not in found.evidence
    # Of two shares of one total, each error decides the other.
    correlation = found.covariance_kT2[0, 1] / np.prod(found.stderrs_kT)
    assert correlation == pytest.approx(-1.0, abs=0.02)


def test_errors_of_correlated_frames_are_those_of_whole_simulations() -> None:
    """Simulations whose shares of a state scatter by far more than their frames would."""

    def simulate(seed: int) -> StateFreeEnergies:
        rng = np.random.default_rng(seed)
        share = np.clip(0.3 + 0.06 * rng.standard_normal(8), 0.01, 0.99)
        state = (rng.random((8, 200)) < share[:, None]).ravel()
        replica = np.repeat(np.arange(8), 200)
        return replica_state_free_energies(
            np.zeros(1600), replica, {"a": state}, num_bootstrap=200, seed=seed
        )

    found = [simulate(seed) for seed in range(300)]
    differences = np.array([f.differences_kT[0, 1] for f in found])
    squares = np.array([f.difference_stderrs_kT[0, 1] ** 2 for f in found])
    # The scatter of the frames is in that of the simulations, and counted once more.
    assert 0.95 < math.sqrt(squares.mean()) / differences.std(ddof=1) < 1.3
    assert np.median(differences) == pytest.approx(math.log(0.7 / 0.3), abs=0.03)


def test_simulations_that_agree_by_chance_show_the_error_of_their_frames() -> None:
    state = np.tile(np.arange(200) < 60, 4)  # exactly 30 % of each
    found = replica_state_free_energies(
        np.zeros(800), np.repeat(np.arange(4), 200), {"a": state}, num_bootstrap=2000
    )
    independent = math.sqrt(1 / (800 * 0.3 * 0.7))
    assert found.difference_stderrs_kT[0, 1] > 0.95 * independent


def test_a_single_simulation_shows_no_error() -> None:
    state = np.arange(100) < 30
    found = replica_state_free_energies(np.zeros(100), np.zeros(100, dtype=int), {"a": state})
    assert found.weights == pytest.approx([0.3, 0.7])
    assert np.isnan(found.difference_stderrs_kT).all()


def test_frames_far_above_all_others_are_counted_by_what_they_weigh() -> None:
    """Their squares would vanish, and with them the reason why there is no number."""
    log_weights, state = np.zeros(100), np.zeros(100, dtype=bool)
    log_weights[:3], state[:3] = [-400.0, -401.0, -900.0], True
    found = replica_state_free_energies(log_weights, np.arange(100) % 4, {"clash": state})
    evidence = found.evidence["clash"]
    assert evidence.ess == pytest.approx((1 + math.exp(-1)) ** 2 / (1 + math.exp(-2)))
    assert evidence.fault is not None


def test_overlapping_states_are_refused_with_their_number() -> None:
    x = np.arange(100)
    with pytest.raises(InputError, match=r"states a and b: .* got 10 of 100 samples in both"):
        state_free_energies(
            np.zeros(100), np.zeros(100), {"a": x < 50, "b": x >= 40}, num_random=100
        )
    with pytest.raises(InputError, match="'rest', which is everything else"):
        state_free_energies(np.zeros(100), np.zeros(100), {REST: x < 50}, num_random=100)
    with pytest.raises(InputError, match="state a: expected 100 booleans"):
        state_free_energies(np.zeros(100), np.zeros(100), {"a": x}, num_random=100)


def test_a_state_whose_weights_lie_far_apart_has_no_number() -> None:
    """Squares of its weights vanish, their sum does not."""
    log_weights, inside = np.zeros(1000), np.zeros(1000, dtype=bool)
    log_weights[[3, 500, 700]], inside[[3, 500, 700]] = [-60.0, -500.0, -900.0], True
    exact = np.where(np.arange(1000) < 150, log_weights, np.nan)
    found = state_free_energies(log_weights, exact, {"clash": inside}, num_random=150)
    assert found.evidence["clash"].fault is not None
