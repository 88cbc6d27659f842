"""Which estimates are called reliable, and what is advised where they are not."""

import pytest

from bnce_dist.generator.verdict import Verdict, judge

GOOD = {
    "ess_num_samples": 10_000,
    "ess_fraction": 0.4,
    "pareto_k": 0.3,
    "ess_in_state": 300.0,
    "ess_outside_state": 3700.0,
    "num_rejected": 12,
    "log_density_error_sd_kT": 0.4,
}


def test_a_good_estimate_is_reliable_and_says_why() -> None:
    verdict = judge(GOOD)
    assert verdict.reliable
    assert verdict.advice == ()
    assert verdict.lines() == ["reliable"]
    assert "10000 samples are worth 4000 independent ones." in verdict.reasons
    assert len(verdict.reasons) == 5


@pytest.mark.parametrize(
    ("change", "reason", "advice"),
    [
        ({"ess_fraction": 0.005}, "worth 50 independent", "2.0 times as many samples"),
        ({"pareto_k": 0.7}, "Pareto k of 0.70", "emulator.width"),
        ({"ess_in_state": 4.0}, "holds 4 effective", "dataset.state_fraction"),
        ({"ess_outside_state": 0.0}, "the rest 0", "dataset.state_fraction"),
        ({"num_rejected": 2500}, "25.0% of the samples", "emulator.num_ode_steps"),
        ({"log_density_error_sd_kT": 1.3}, "1.30 kT about the exact", "energy.num_steps"),
    ],
)
def test_one_failure_is_enough(change: dict[str, float], reason: str, advice: str) -> None:
    verdict = judge(GOOD | change)
    assert not verdict.reliable
    assert len(verdict.reasons) == len(verdict.advice) == 1
    assert reason in verdict.reasons[0]
    assert advice in verdict.advice[0]
    assert verdict.lines()[0].startswith("UNRELIABLE: ")
    assert Verdict.from_record(verdict.as_record()) == verdict


def test_without_an_exact_likelihood_the_energy_model_is_not_judged() -> None:
    metrics = {name: value for name, value in GOOD.items() if name != "log_density_error_sd_kT"}
    assert len(judge(metrics).reasons) == 4
