"""Intervals hold the truth as often as they say: the benchmark in small, and its record."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

from bnce_dist.data.atomic import read_json

# No interval holds what has no mean.
HOPELESS = ("small_state_no_mean", "one_sided_no_mean")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    # Under a name of its own: another package is called coverage.
    spec = importlib.util.spec_from_file_location("interval_coverage", BENCHMARKS / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["A", "C", "E", "H", "small_state_tail_08", "few_samples"])
def test_intervals_cover(coverage: ModuleType, name: str) -> None:
    repetitions = 100
    numbers = coverage.measure(coverage.CASES[name], repetitions)
    # With a true coverage of 0.93 fewer are seen once in a thousand times.
    assert numbers["coverage"] >= stats.binom.ppf(1e-3, repetitions, 0.93) / repetitions
    assert numbers["share_reliable"] > (0.9 if "tail" not in name else 0.2)


def test_closed_forms_are_those_of_many_samples(coverage: ModuleType) -> None:
    case = coverage.Case(
        coverage.Tail(0.9), coverage.Tail(0.5, 0.2), coverage.noise(0.1), num_samples=400_000
    )
    result, _ = case.estimate(0)
    assert result.value_kT == pytest.approx(case.truth, abs=4 * result.stderr_kT)
    assert result.stderr_kT < 0.01


def test_the_record_keeps_the_promise() -> None:
    cases = read_json(BENCHMARKS / "results" / "coverage.json")["cases"]
    for name in "ABCDEFGH":
        assert cases[name]["coverage"] >= 0.93, name
    for name in "ABH":
        assert cases[name]["coverage"] <= 0.97, name
    # Wider than they need be, so that those of heavier tails which look like these hold theirs.
    for name in "CE":
        assert cases[name]["coverage"] <= 0.985, name
    for name in "ABCEFH":
        assert cases[name]["share_reliable"] >= 0.75, name
    for name, numbers in cases.items():
        assert numbers["share_reliable_and_wrong"] <= 0.07, name
        # Of samples that nobody can tell from those of lighter tails, few are called reliable.
        assert name in HOPELESS or numbers["coverage_reliable"] >= 0.9, name
