"""Which estimates are called reliable, and what is advised where they are not."""

import pytest

from bnce_dist.generator.verdict import PRETRAINED, Verdict, judge

GOOD = {
    "delta_f_kT": 3.9,
    "delta_f_stderr_kT": 0.04,
    "ess_num_samples": 10_000,
    "num_exact_in_state": 800,
    "num_exact_outside_state": 1700,
    "pareto_k_in_state": 0.3,
    "pareto_k_outside_state": 0.2,
    "hidden_in_state_kT": 0.02,
    "hidden_outside_state_kT": 0.0,
    "no_mean_probability_in_state": 0.01,
    "no_mean_probability_outside_state": 0.0,
    "ess_exact_in_state": 300.0,
    "ess_exact_outside_state": 3700.0,
    "largest_weight_share": 0.01,
    "num_rejected": 12,
    "model_error_kT": 0.02,
    "num_negative_determinants": 0,
    "delta_f_fold_shift_kT": 0.0,
    "forward_ess_in_state": 0.4,
    "forward_ess_outside_state": 0.6,
    "reverse_ess_in_state": 0.45,
    "reverse_ess_outside_state": 0.55,
    "unseen_in_state": 0.01,
    "unseen_outside_state": 0.04,
    "delta_f_reference_kT": 3.84,
    "delta_f_reference_stderr_kT": 0.02,
}


def test_a_good_estimate_is_reliable_and_says_why() -> None:
    verdict = judge(GOOD)
    assert verdict.reliable
    assert verdict.advice == ()
    assert verdict.lines() == ["reliable"]
    assert "The state holds 300 effective samples, the rest 3700." in verdict.reasons
    assert len(verdict.reasons) == 10


@pytest.mark.parametrize(
    ("change", "reason", "advice"),
    [
        ({"no_mean_probability_in_state": 0.4}, "no mean with a probability of 40.0%", "width"),
        ({"no_mean_probability_outside_state": 1.0}, "outside the state has a Par", "width"),
        ({"ess_exact_in_state": 40.0}, "holds 40 effective", "dataset.state_fraction"),
        ({"ess_exact_in_state": 4.0}, "holds 4 effective", "dataset.state_fraction"),
        ({"ess_exact_outside_state": 0.0}, "the rest 0", "dataset.state_fraction"),
        ({"largest_weight_share": 0.3}, "One sample has 30.0%", "evaluate.num_samples"),
        ({"num_rejected": 2500}, "25.0% of the samples", "emulator.num_ode_steps"),
        ({"model_error_kT": 0.2}, "adds 0.200 kT", "evaluate.num_exact"),
        ({"model_error_kT": None}, "of sampling only", "num_exact"),
        ({"delta_f_fold_shift_kT": -0.2}, "shifts the estimate by -0.200", "num_ode_steps"),
        ({"forward_ess_in_state": 1e-3}, "in the state are worth 0.00", "emulator on more data"),
        ({"unseen_in_state": 0.05}, "simulation in the state 5.0% are where", "more data"),
        ({"delta_f_reference_kT": 3.2}, "15.7 combined standard errors", "run the reference"),
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


def test_annealing_that_was_cut_short_is_advised_against_where_something_failed() -> None:
    levels = {"annealing_num_levels": 100, "annealing_num_levels_at_limit": 87}
    assert judge(GOOD | levels) == judge(GOOD)
    advice = judge(GOOD | levels | {"largest_weight_share": 0.3}).advice
    assert len(advice) == 2
    assert "annealing.max_levels): 87 of 100" in advice[1]
    enough = {"annealing_num_levels": 40, "annealing_num_levels_at_limit": 0}
    assert len(judge(GOOD | enough | {"largest_weight_share": 0.3}).advice) == 1


def test_who_cannot_train_the_sampler_is_not_told_to() -> None:
    failures = {
        "no_mean_probability_in_state": 0.4,
        "ess_exact_in_state": 4.0,
        "largest_weight_share": 0.3,
        "num_rejected": 2500,
        "delta_f_fold_shift_kT": 0.2,
    }
    advice = judge(GOOD | failures, PRETRAINED).advice
    # Broken samples and folds are mended by the same.
    assert len(advice) == len(failures) - 1
    for line in advice:
        assert "emulator" not in line
        assert "dataset" not in line
    assert any("samples.num_steps" in line for line in advice)


def test_what_was_not_measured_is_not_judged() -> None:
    unmeasured = (
        *("delta_f_fold_shift_kT", "forward_ess_in_state"),
        *("unseen_in_state", "delta_f_reference_kT"),
    )
    metrics = {name: value for name, value in GOOD.items() if name not in unmeasured}
    assert judge(metrics).reliable
    assert len(judge(metrics).reasons) == 6


def test_a_reference_that_has_not_converged_does_not_condemn() -> None:
    verdict = judge(GOOD | {"delta_f_reference_kT": 3.2, "delta_f_reference_converged": False})
    assert verdict.reliable
    assert any("not converged" in reason for reason in verdict.reasons)


def test_wide_scatter_of_the_learned_density_does_no_harm_where_the_correction_is_known() -> None:
    assert judge(GOOD | {"log_density_error_sd_kT": 1.3}).reliable


def test_a_tail_without_a_mean_hides_nobody_knows_what() -> None:
    heavy = {"pareto_k_in_state": 1.7, "no_mean_probability_in_state": 0.97}
    (reason,) = judge(GOOD | heavy).reasons
    assert "Pareto k of 1.70, and has no mean with a probability of 97.0%, more than 25%" in reason
    assert "hide" not in reason
