"""The language of states: what binds closest, what wraps, and where a mistake is."""

import numpy as np
import pytest

from bnce_dist.core.condition import Interval, parse_condition
from bnce_dist.core.errors import InputError

X = np.linspace(-3.0, 3.0, 61) + 0.01
Y = np.linspace(3.0, -3.0, 61) + 0.02


def held(text: str) -> list[bool]:
    return parse_condition(text).contains({"x": X, "y": Y}).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x in [0, 2]", (X > 0) & (X < 2)),
        ("x in [2, -2.5]", (X > 2) | (X < -2.5)),
        ("not x in [0,2]", (X < 0) | (X > 2)),
        ("not not x in [0, 2]", (X > 0) & (X < 2)),
        # not before and, and before or.
        ("not x in [0, 2] and y in [-1, 1]", ~((X > 0) & (X < 2)) & (np.abs(Y) < 1)),
        (
            "x in [0, 1] or x in [-1, 2] and y in [-1, 0]",
            ((X > 0) & (X < 1)) | ((X > -1) & (X < 2) & (Y > -1) & (Y < 0)),
        ),
        (
            "(x in [0, 1] or x in [-1, 2]) and y in [-1, 0]",
            (X > -1) & (X < 2) & (Y > -1) & (Y < 0),
        ),
        (
            "not (x in [-1, 1] or y in [-1e0, +1])",
            (np.abs(X) > 1) & (np.abs(Y) > 1),
        ),
        ("x in [-3.1, -1]and y in[.5, 3.1]", (X < -1) & (Y > 0.5)),
        ("not(x in [0, 2])", (X < 0) | (X > 2)),
        ("x in [-1, 2]and(y in [-1, 0])", (X > -1) & (X < 2) & (Y > -1) & (Y < 0)),
        ("(x in [0, 1])or(x in [2, 3])", ((X > 0) & (X < 1)) | ((X > 2) & (X < 3))),
    ],
)
def test_a_condition_holds_where_it_says(text: str, expected: np.ndarray) -> None:
    assert 0 < expected.sum() < len(X)
    assert held(text) == expected.tolist()


def test_edges_are_outside() -> None:
    inside = parse_condition("x in [0, 2]").contains({"x": np.array([0.0, 1.0, 2.0])})
    assert inside.tolist() == [False, True, False]
    through_pi = parse_condition("x in [2, -2]").contains({"x": np.array([2.0, 3.0, -2.0])})
    assert through_pi.tolist() == [False, True, False]


def test_names_may_have_arguments_and_residues() -> None:
    text = "distance( 2:N , 2:O ) in [0, 0.35] or chi1:2 in [0, 2] and C1-C2-C3-C4 in [0, 1]"
    names = [interval.name for interval in parse_condition(text).intervals()]
    assert names == ["distance(2:N,2:O)", "chi1:2", "C1-C2-C3-C4"]
    assert parse_condition("x in [0, 2]") == Interval("x", 0.0, 2.0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected a name, 'not' or '(' at character 1, got the end"),
        ("x", "expected 'in' at character 2, got the end"),
        ("x = 2", "expected 'in' at character 3, got '='"),
        ("x in 0, 2", r"expected '\[' at character 6, got '0'"),
        ("x in [0 2]", "expected ',' at character 9, got '2'"),
        ("x in [0, two]", "expected a number at character 10, got 'two'"),
        ("x in [nan, 2]", "expected a number at character 7, got 'nan'"),
        ("x in [0, inf]", "expected a number at character 10, got 'inf'"),
        ("x in [1, 1]", "expected another number than the lower edge at character 10, got '1'"),
        ("x in [0, 2", r"expected '\]' at character 11, got the end"),
        ("(x in [0, 2]", r"expected 'and', 'or' or '\)' at character 13, got the end"),
        ("x in [0, 2])", r"expected 'and', 'or' or the end at character 12, got '\)'"),
        ("x in [0, 2] x in [0, 1]", "expected 'and', 'or' or the end at character 13, got 'x'"),
        ("x in [0, 2] and", "expected a name, 'not' or '.' at character 16, got the end"),
        ("and x in [0, 2]", "expected a name, 'not' or '.' at character 1, got 'and'"),
        ("x in [0, 2] xor y in [0, 1]", "at character 13, got 'xor'"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line.replace("'('", "'.'")) as refused:
        parse_condition(text)
    assert "\n" not in str(refused.value)
