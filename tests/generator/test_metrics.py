"""The numbers of an evaluation, against closed forms.

Samples x ~ N(0, 1) stand for the emulator, the target is N(0, s^2) without its normalisation,
and a "learned" density that is the true one plus a constant and noise of known size.
"""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import select_for_exact
from bnce_dist.core.free_energy import delta_f
from bnce_dist.generator.distances import (
    baseline_distance,
    distance_of_energies,
    distances_to_reference,
)
from bnce_dist.generator.frame_metrics import unseen_metrics
from bnce_dist.generator.metrics import (
    EvaluateConfig,
    evaluation_metrics,
    evidence,
    metrics_without_weights,
    one_step_metrics,
)
from bnce_dist.generator.samples import Samples

NUM_SAMPLES, NUM_EXACT = 40_000, 10_000
TARGET_SD, OFFSET, NOISE = 0.8, 1.5, 0.2
SPREAD = 0.5
CONFIG = EvaluateConfig(num_samples=NUM_SAMPLES, num_exact=NUM_EXACT, num_bootstrap=50)


def make_samples(**changes: np.ndarray) -> Samples:
    rng = np.random.default_rng(0)
    x = rng.normal(size=NUM_SAMPLES)
    log_density = -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    arrays = {
        "reduced_potential": 0.5 * (x / TARGET_SD) ** 2,
        "log_density": log_density + OFFSET + NOISE * rng.normal(size=NUM_SAMPLES),
        "log_density_exact": np.where(np.arange(NUM_SAMPLES) < NUM_EXACT, log_density, np.nan),
        "num_random": NUM_EXACT,
        "in_state": x > 1.0,
        "valid": np.ones(NUM_SAMPLES, dtype=bool),
        "native_chirality": np.ones(NUM_SAMPLES, dtype=bool),
        "mirrored": np.zeros(NUM_SAMPLES, dtype=bool),
        "inverted": np.zeros(NUM_SAMPLES, dtype=bool),
        "cpu_seconds": np.full(NUM_SAMPLES, 1e-5),
        "cpu_seconds_exact": np.full(NUM_EXACT, 2e-2),
    }
    angles = {"phi": np.zeros(NUM_SAMPLES), "psi": np.zeros(NUM_SAMPLES)}
    return Samples(**(angles | arrays | changes))


@pytest.fixture(scope="module")
def metrics() -> dict:
    return evaluation_metrics(make_samples(), CONFIG, seed=0)


def test_free_energy(metrics: dict) -> None:
    in_state = 0.5 * math.erfc(1.0 / TARGET_SD / math.sqrt(2))
    expected = -math.log(in_state / (1 - in_state))
    assert metrics["delta_f_kT"] == pytest.approx(expected, abs=4 * metrics["delta_f_stderr_kT"])
    assert metrics["delta_f_exact_kT"] == pytest.approx(
        expected, abs=4 * metrics["delta_f_exact_stderr_kT"]
    )
    assert metrics["delta_f_stderr_kT"] < 0.05
    low, high = metrics["delta_f_interval_kT"]
    assert low < metrics["delta_f_kT"] < high


def test_normalisation_constant(metrics: dict) -> None:
    log_z = math.log(TARGET_SD * math.sqrt(2 * math.pi))
    assert metrics["log_z_exact"] == pytest.approx(log_z, abs=0.02)
    # Noise in the log density raises the mean weight by half its variance.
    assert metrics["log_z"] == pytest.approx(log_z - OFFSET + NOISE**2 / 2, abs=0.03)


def test_error_of_the_learned_density(metrics: dict) -> None:
    assert metrics["log_density_offset_kT"] == pytest.approx(OFFSET, abs=0.01)
    assert metrics["log_density_error_sd_kT"] == pytest.approx(NOISE, rel=0.05)
    assert metrics["log_density_rmse_kT"] == pytest.approx(math.hypot(NOISE, OFFSET), rel=0.05)
    assert metrics["log_density_num_samples"] == NUM_EXACT


def test_effective_sample_size(metrics: dict) -> None:
    # E[w]^2 / E[w^2] of a Gaussian reweighted to a narrower one.
    precision = 1 / TARGET_SD**2
    exact = math.sqrt(2 * precision - 1) / precision
    assert metrics["ess_fraction_exact"] == pytest.approx(exact, rel=0.02)
    assert metrics["ess_fraction"] == pytest.approx(exact * math.exp(-(NOISE**2)), rel=0.02)
    assert metrics["ess_num_samples"] == NUM_SAMPLES
    assert metrics["pareto_k"] < 0.5


def test_exact_densities_of_the_largest_weights_repair_what_the_model_got_wrong(
    metrics: dict,
) -> None:
    x = np.random.default_rng(0).normal(size=NUM_SAMPLES)  # as in make_samples
    truth = -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    spoilt = make_samples().log_density.copy()
    lost = np.r_[3:6, NUM_EXACT + 7 : NUM_EXACT + 17]  # some of them among the first samples
    spoilt[lost] -= 10.0
    worse = evaluation_metrics(make_samples(log_density=spoilt), CONFIG, seed=0)
    assert worse["ess_fraction"] < 0.01

    samples = make_samples(log_density=spoilt)
    subset = select_for_exact(
        samples.log_weights_learned, samples.in_state, num_random=NUM_EXACT, num_weighted=2_000
    )
    exact = np.full(NUM_SAMPLES, np.nan)
    exact[subset.rows] = truth[subset.rows]
    samples = make_samples(log_density=spoilt, log_density_exact=exact, inclusion=subset.inclusion)
    repaired = evaluation_metrics(samples, CONFIG, seed=0)
    assert repaired["ess_fraction_learned"] < 0.01
    assert repaired["ess_fraction"] == pytest.approx(metrics["ess_fraction"], rel=0.05)
    assert repaired["largest_weight_share"] < 0.02 < worse["largest_weight_share"]
    difference = repaired["delta_f_kT"] - metrics["delta_f_kT"]
    assert abs(difference) < 3 * metrics["delta_f_stderr_kT"]
    assert repaired["delta_f_stderr_kT"] < 1.5 * metrics["delta_f_stderr_kT"]


def test_random_samples_on_one_side_alone_end_no_run() -> None:
    """The first 20 of samples all weigh the same, and none of them is in the state."""
    every = np.ones(2000, dtype=bool)
    in_state = np.arange(2000) >= 1800
    exact = np.where((np.arange(2000) < 20) | in_state, 0.0, np.nan)
    samples = Samples(
        reduced_potential=np.zeros(2000), log_density=np.zeros(2000), log_density_exact=exact,
        num_random=20, phi=np.zeros(2000), psi=np.zeros(2000), in_state=in_state, valid=every,
        native_chirality=every, mirrored=~every, inverted=~every, cpu_seconds=np.ones(2000),
        cpu_seconds_exact=np.ones(220),
    )  # fmt: skip
    config = EvaluateConfig(num_samples=2000, num_exact=20, num_bootstrap=20)
    metrics = evaluation_metrics(samples, config, seed=0)
    assert metrics["delta_f_kT"] == pytest.approx(math.log(9))
    assert np.isfinite(metrics["delta_f_interval_kT"]).all()
    for unknown in ("delta_f_exact_kT", "delta_f_exact_stderr_kT", "delta_f_fold_shift_kT"):
        assert metrics[unknown] is None
    assert metrics["ess_fraction_exact"] == pytest.approx(1)


def test_weight_that_a_tail_without_a_mean_hides_is_no_number() -> None:
    logs = np.log1p(np.random.default_rng(0).pareto(1 / 3, 400))
    numbers = evidence(delta_f(np.where(np.arange(400) < 200, logs, 0.0), np.arange(400) < 200))
    # Certain but for rounding.
    assert 0.999 < numbers["no_mean_probability_in_state"] < 1
    assert numbers["hidden_in_state_kT"] is None
    assert numbers["hidden_outside_state_kT"] == 0


def test_before_annealing_one_side_may_have_no_weight() -> None:
    everywhere_else = make_samples(in_state=np.zeros(NUM_SAMPLES, dtype=bool))
    assert set(one_step_metrics(everywhere_else, CONFIG, seed=0).values()) == {None}


def test_annealed_weights_take_the_place_of_one_step_ones() -> None:
    """Half of the way to the target is in the samples; the exact density of the start in some."""
    drawn = make_samples()
    x = np.random.default_rng(0).normal(size=NUM_SAMPLES)  # as in make_samples
    shift = 0.7 * (drawn.log_weights_learned - drawn.log_weights_learned.mean())
    annealed = {
        "log_weights": drawn.log_weights_learned - shift,
        "reduced_potential": np.full(NUM_SAMPLES, 3.0),
        "phi": np.ones(NUM_SAMPLES),
        "psi": np.zeros(NUM_SAMPLES),
    }
    names = ("reduced_potential", "log_density", "phi", "psi", "valid", "native_chirality")
    evaluated = {name: getattr(drawn, name) for name in (*names, "mirrored")} | {
        "cpu_seconds": drawn.cpu_seconds,
        "log_det_decode": np.ones(NUM_SAMPLES),
    }
    exact = {
        "log_density_z": drawn.log_density_exact[:NUM_EXACT] + 1.0,
        "cpu_seconds": drawn.cpu_seconds_exact,
    }
    samples = Samples.from_arrays(evaluated, exact, drawn.in_state).annealed(annealed, x > 1.0)
    np.testing.assert_array_equal(samples.log_weights_learned, annealed["log_weights"])
    for name in ("reduced_potential", "phi", "psi"):
        np.testing.assert_array_equal(getattr(samples, name), annealed[name])
    error = drawn.log_density - drawn.log_density_exact
    np.testing.assert_allclose(
        samples.log_weights_exact[:NUM_EXACT], (annealed["log_weights"] + error)[:NUM_EXACT]
    )
    assert np.isnan(samples.log_weights_exact[NUM_EXACT:]).all()
    metrics = evaluation_metrics(samples, CONFIG, seed=0)
    beside = one_step_metrics(drawn, CONFIG, seed=0)
    assert metrics["log_density_error_sd_kT"] == pytest.approx(NOISE, rel=0.05)
    assert metrics["ess_fraction_learned"] > beside["ess_fraction_learned_one_step"]
    one_step = evaluation_metrics(drawn, CONFIG, seed=0)
    assert beside["delta_f_one_step_kT"] == one_step["delta_f_kT"]


def test_how_samples_were_chosen_is_read_and_decides_what_they_stand_for() -> None:
    """Half of the samples are in the state; exact weights are twice the learned ones of a quarter
    of it, which was three times as likely to be chosen, and of nothing else."""
    rng, size = np.random.default_rng(0), 20_000
    in_state, doubled = np.arange(size) % 2 == 0, np.arange(size) % 8 == 0
    inclusion = np.where(doubled, 0.3, 0.1)
    rows = np.flatnonzero(rng.random(size) < inclusion)
    names = ("log_density", "reduced_potential", "phi", "psi", "log_det_decode", "cpu_seconds")
    evaluated = dict.fromkeys(names, np.zeros(size))
    evaluated |= dict.fromkeys(("valid", "native_chirality"), np.ones(size, dtype=bool))
    exact = {
        "row": rows,
        "log_density_z": np.where(doubled[rows], -math.log(2), 0.0),
        "cpu_seconds": np.ones(len(rows)),
    }

    def difference(**chosen: np.ndarray) -> float:
        samples = Samples.from_arrays(evaluated, exact | chosen, in_state)
        assert samples.num_random == 0
        of_sides = (logsumexp(samples.log_weights[side]) for side in (in_state, ~in_state))
        return float(np.subtract(*of_sides))

    weighted = {"is_weighted": np.ones(len(rows), dtype=bool), "inclusion": inclusion[rows]}
    assert difference(**weighted) == pytest.approx(math.log(1.25), abs=0.04)
    # Of an earlier version nothing but the heaviest is known beside the first samples.
    heaviest = {"is_top": np.ones(len(rows), dtype=bool)}
    assert difference(**heaviest) == pytest.approx(math.log(1.5), abs=0.04)


def test_the_setting_has_its_earlier_name_too() -> None:
    config = EvaluateConfig.model_validate({"num_exact_top": 30})
    assert config.num_exact_weighted == 30


def test_speedup_is_per_sample(metrics: dict) -> None:
    assert metrics["speedup_over_exact"] == pytest.approx(2000)


def test_impossible_samples_have_no_weight_and_are_counted() -> None:
    potential = make_samples().reduced_potential.copy()
    valid, native = np.ones((2, NUM_SAMPLES), dtype=bool)
    potential[:10], valid[:10], native[5:30] = np.inf, False, False
    mirrored = np.arange(NUM_SAMPLES) < 100
    samples = make_samples(
        reduced_potential=potential, valid=valid, native_chirality=native, mirrored=mirrored
    )
    metrics = evaluation_metrics(samples, CONFIG, seed=0)
    assert np.isneginf(samples.log_weights[:30]).all()
    assert np.isneginf(samples.log_weights_exact[:30]).all()
    assert np.isnan(samples.log_weights_exact[NUM_EXACT:]).all()
    assert np.isfinite(samples.log_weights[30:]).all()
    assert metrics["num_rejected"] == 30
    assert metrics["num_invalid"] == 10
    assert metrics["num_wrong_chirality"] == 20
    assert metrics["num_mirrored"] == 70


def test_samples_without_a_molecule_have_counts_and_no_estimate() -> None:
    broken = np.arange(NUM_SAMPLES) < NUM_SAMPLES - 7
    assert make_samples().has_weight
    potential = np.where(broken, np.inf, make_samples().reduced_potential)
    samples = make_samples(valid=~broken, native_chirality=broken, reduced_potential=potential)
    assert not samples.has_weight
    metrics = metrics_without_weights(samples)
    assert metrics["num_rejected"] == metrics["ess_num_samples"] == NUM_SAMPLES
    assert (metrics["num_invalid"], metrics["num_wrong_chirality"]) == (NUM_SAMPLES - 7, 7)
    assert (metrics["delta_f_kT"], metrics["ess_fraction"], metrics["pareto_k"]) == (None,) * 3
    # The learned density is right or wrong whatever the samples are worth.
    usual = evaluation_metrics(make_samples(), CONFIG, seed=0)
    assert metrics["log_density_rmse_kT"] == usual["log_density_rmse_kT"]
    assert metrics.keys() <= usual.keys() | {"energy_w2_kT", "torsion_w2_rad"}


def test_distances_to_the_reference_vanish_by_reweighting() -> None:
    rng = np.random.default_rng(1)
    y = TARGET_SD * rng.normal(size=NUM_SAMPLES)
    x = np.random.default_rng(0).normal(size=NUM_SAMPLES)  # as in make_samples
    zeros = np.zeros(NUM_SAMPLES)
    phi, psi = _across_the_cut(y).T
    reference = Reference({}, phi, psi, zeros, zeros, 0.5 * (y / TARGET_SD) ** 2, zeros)
    samples = make_samples()
    potential = samples.reduced_potential.copy()
    potential[5] = np.inf
    phi, psi = _across_the_cut(x).T
    compared = make_samples(reduced_potential=potential, phi=phi, psi=psi)
    before, after = (
        distances_to_reference(compared, reference, reference.energies, 0, weighted=weighted)
        for weighted in (False, True)
    )
    # Both energies are chi-squared variables times a factor, both angles Gaussians times one.
    energy_w2 = 0.5 * (1 / TARGET_SD**2 - 1) * math.sqrt(3)
    assert before[0] == pytest.approx(energy_w2, rel=0.05)
    assert after[0] < 0.1 * energy_w2
    learned = distance_of_energies(compared, compared.log_weights_learned, reference.energies)
    assert learned < 0.1 * energy_w2
    baseline = baseline_distance(reference, 0, NUM_SAMPLES)
    assert before[1] == pytest.approx(SPREAD * (1 - TARGET_SD), rel=0.2)
    assert after[1] < 2 * baseline < 0.5 * SPREAD * (1 - TARGET_SD)


def _across_the_cut(x: np.ndarray) -> np.ndarray:
    angle = math.pi + SPREAD * x
    return np.stack([(angle + math.pi) % (2 * math.pi) - math.pi, np.zeros_like(x)], axis=1)


def test_no_sample_in_the_state_is_an_error_and_not_a_number() -> None:
    with pytest.raises(InputError, match="both sides"):
        evaluation_metrics(make_samples(in_state=np.zeros(NUM_SAMPLES, dtype=bool)), CONFIG, seed=0)


def test_not_a_number_is_never_silent() -> None:
    log_density = make_samples().log_density.copy()
    log_density[3] = np.nan
    with pytest.raises(InputError, match="finite"):
        evaluation_metrics(make_samples(log_density=log_density), CONFIG, seed=0)


def frames_of(x: np.ndarray, log_density: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    potential = 0.5 * (x / TARGET_SD) ** 2
    return {
        "reduced_potential": potential,
        "log_density": log_density,
        "in_state": x > 1.0,
        "found": found,
    }


def test_frames_that_the_emulator_covers_are_seen_and_others_are_not() -> None:
    samples = make_samples()
    x = np.random.default_rng(5).normal(scale=TARGET_SD, size=2000)
    log_density = -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    found = np.ones(len(x), dtype=bool)
    covered = unseen_metrics(samples, samples, frames_of(x, log_density, found))
    assert covered == {"unseen_in_state": 0.0, "unseen_outside_state": 0.0}

    # A tenth of the state lies where the emulator's density is e^-10 of what it should be, and
    # to a twentieth of the rest no noise leads.
    lacking, lost = (x > 1.0) & (np.arange(len(x)) % 10 == 0), (x < 1.0) & (np.arange(len(x)) < 100)
    missing = unseen_metrics(
        samples, samples, frames_of(x, log_density - 10.0 * lacking, found & ~lost)
    )
    assert missing["unseen_in_state"] == pytest.approx(lacking.sum() / (x > 1.0).sum())
    assert missing["unseen_outside_state"] == pytest.approx(lost.sum() / (x < 1.0).sum())
