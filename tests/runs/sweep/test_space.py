import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bnce_dist.runs.sweep.space import Dimension, corners, random_point

SPACE = {
    "rate": Dimension(log_uniform=(1e-4, 1e-1)),
    "exponent": Dimension(uniform=(1.0, 4.0)),
    "negatives": Dimension(integers=(3, 6)),
    "path": Dimension(choice=("linear", "trigonometric", None)),
}


@pytest.fixture(scope="module")
def points() -> list[dict]:
    return [random_point(SPACE, seed=1, number=number) for number in range(2000)]


def test_draws_follow_their_distributions(points: list[dict]) -> None:
    logs = [math.log10(point["rate"]) for point in points]
    assert stats.kstest(logs, stats.uniform(-4, 3).cdf).pvalue > 1e-3
    exponents = [point["exponent"] for point in points]
    assert stats.kstest(exponents, stats.uniform(1, 3).cdf).pvalue > 1e-3
    for key, values in (("negatives", (3, 4, 5, 6)), ("path", SPACE["path"].choice)):
        counts = [sum(point[key] == value for point in points) for value in values]
        assert sum(counts) == len(points)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_settings_are_drawn_independently_of_each_other(points: list[dict]) -> None:
    columns = np.array([[math.log(p["rate"]), p["exponent"], p["negatives"]] for p in points])
    correlations = np.corrcoef(columns.T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / math.sqrt(len(points))


def test_a_trial_is_a_function_of_seed_and_number() -> None:
    assert random_point(SPACE, 1, 7) == random_point(SPACE, 1, 7)
    assert random_point(SPACE, 1, 7) != random_point(SPACE, 1, 8)
    assert random_point(SPACE, 1, 7) != random_point(SPACE, 2, 7)


def test_integers_stay_integers(points: list[dict]) -> None:
    assert {type(point["negatives"]) for point in points} == {int}


def test_corners_are_all_combinations_of_extremes() -> None:
    expected = itertools.product((1e-4, 1e-1), (1.0, 4.0), (3, 6), SPACE["path"].choice)
    assert [tuple(corner.values()) for corner in corners(SPACE)] == list(expected)


def test_clipping_keeps_what_is_possible() -> None:
    assert SPACE["rate"].clip(1.0) == 1e-1
    assert SPACE["rate"].clip(1e-9) == 1e-4
    assert SPACE["exponent"].clip(2.5) == 2.5
    assert SPACE["path"].clip("linear") == "linear"
