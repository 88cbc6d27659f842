"""The trained pair as one object: its numbers against OpenMM and closed forms, its file."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.potentials.force_field import build_system
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.chem.validation import exchangeable_hydrogens
from bnce_dist.core.bennett import Estimate
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator as noise
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.generator.exact_weights import with_exact
from bnce_dist.generator.shipped import load_shipped


@pytest.fixture(scope="module")
def generator(finished_run: Path) -> BoltzmannGenerator:
    return BoltzmannGenerator.load(finished_run)


@pytest.fixture(scope="module")
def ensemble(generator: BoltzmannGenerator) -> Ensemble:
    return generator.sample(1100, seed=3, progress=False)


def test_energies_are_those_of_openmm(generator: BoltzmannGenerator, ensemble: Ensemble) -> None:
    usable = np.isfinite(ensemble.log_weights)
    positions = ensemble.positions_nm[usable][:20]
    system = build_system(generator.molecule, generator.target_config.force_field)
    openmm = OpenMMPotential(system, generator.target_config.temperature_kelvin)
    expected = openmm.reduced_potential(torch.from_numpy(positions)).numpy()
    np.testing.assert_allclose(ensemble.reduced_potential[usable][:20], expected, atol=1e-4)
    np.testing.assert_allclose(generator.reduced_potential(positions), expected, atol=1e-4)


def test_samples_know_the_density_of_their_positions(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    usable = np.isfinite(ensemble.log_weights)
    positions = ensemble.positions_nm[usable][:50]
    np.testing.assert_allclose(
        generator.log_density(positions), ensemble.log_density[usable][:50], atol=1e-3
    )
    log_weights = -ensemble.reduced_potential - ensemble.log_density
    np.testing.assert_allclose(ensemble.log_weights[usable], log_weights[usable])
    np.testing.assert_allclose(
        generator.log_weights(torch.from_numpy(positions)), log_weights[usable][:50], atol=1e-3
    )


def test_annealed_samples_weigh_more_evenly_and_are_reproducible(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    annealing = AnnealingConfig(num_levels=4, num_pilot=50)
    annealed = generator.sample(1100, seed=3, annealing=annealing, progress=False)
    assert annealed.ess_fraction > 1.5 * ensemble.ess_fraction
    again = generator.sample(1001, seed=3, annealing=annealing, progress=False)
    np.testing.assert_array_equal(again.log_weights[:1000], annealed.log_weights[:1000])
    usable = np.isfinite(annealed.log_weights)
    positions = annealed.positions_nm[usable][:20]
    np.testing.assert_allclose(
        generator.reduced_potential(positions), annealed.reduced_potential[usable][:20], atol=1e-4
    )
    np.testing.assert_allclose(
        generator.log_density(positions), annealed.log_density[usable][:20], atol=1e-3
    )


def test_one_level_of_annealing_weights_as_one_step_does(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    """The moves come after the weights; the target may be hotter than the training."""
    hot = generator.target.at_temperature(400.0)
    assert generator.target.force_field.temperature_kelvin == 300.0
    annealing = AnnealingConfig(num_levels=1, num_pilot=50)
    one_step = generator.sample(100, seed=3, target=hot, progress=False)
    annealed = generator.sample(100, seed=3, target=hot, annealing=annealing, progress=False)
    usable = np.isfinite(one_step.log_weights)
    np.testing.assert_array_equal(usable, np.isfinite(annealed.log_weights))
    reduced = one_step.log_weights[usable]
    likely = reduced > reduced.max() - 50  # Of float32 sums; clashes are of 1e10 kT.
    difference = (annealed.log_weights - one_step.log_weights)[usable][likely]
    assert np.abs(difference).max() < 0.01
    expected = ensemble.reduced_potential[:100][usable] * 300 / 400
    np.testing.assert_allclose(one_step.reduced_potential[usable], expected)


def test_of_another_number_of_levels_no_correction_is_known(generator: BoltzmannGenerator) -> None:
    own = generator.metrics["annealing_num_levels"]
    for num_levels, expected in ((own, generator.correction(annealed=True)), (1, None)):
        annealing = AnnealingConfig(num_levels=num_levels, num_pilot=50)
        found = generator.sample(20, annealing=annealing, progress=False)
        assert found.correction == expected
    assert generator.correction(annealed=True) is not None


def test_resampled_conformations_come_in_their_shares(ensemble: Ensemble) -> None:
    resampled = ensemble.resampled(500)
    expected = 500 * ensemble.weights.normalised
    for row in np.argsort(-expected)[:5]:
        copies = (resampled.reduced_potential == ensemble.reduced_potential[row]).sum()
        assert abs(copies - expected[row]) < 1
    assert len(resampled) == 500
    assert (resampled.log_weights == 0).all()


def test_copies_make_no_error_bar() -> None:
    ensemble = load_shipped("ACE-ALA-NME").sample(1000, seed=3, progress=False)
    resampled = ensemble.resampled(20_000)
    # Twenty times as many, but no more is known: sqrt(20) less of an error would be a lie.
    assert len(np.unique(resampled.reduced_potential)) < 1000
    assert ensemble.delta_f().stderr_kT > 0
    for ask in (resampled.delta_f, resampled.diagnostics, lambda: resampled.verdict):
        with pytest.raises(InputError, match="got resampled ones"):
            ask()


def test_mirror_images_have_no_weight(generator: BoltzmannGenerator, ensemble: Ensemble) -> None:
    usable = np.isfinite(ensemble.log_weights)
    assert np.isneginf(generator.log_weights(-ensemble.positions_nm[usable][:5])).all()


def test_the_first_samples_do_not_depend_on_how_many_follow(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    more = generator.sample(1001, seed=3, progress=False)
    np.testing.assert_array_equal(more.positions_nm[:1000], ensemble.positions_nm[:1000])
    # Of a batch that is cut: the networks round other numbers of rows another way.
    np.testing.assert_allclose(more.positions_nm[1000], ensemble.positions_nm[1000], atol=1e-5)
    other = generator.sample(5, seed=4, progress=False)
    assert not np.allclose(other.positions_nm, ensemble.positions_nm[:5])


def test_free_energy_of_two_halves(ensemble: Ensemble) -> None:
    """Equal weights, a third of the samples in the state: delta_f is ln 2."""
    equal = dataclasses.replace(ensemble, log_weights=np.zeros(900))
    inside = np.arange(900) % 3 == 0
    estimate = equal.delta_f(inside, num_bootstrap=400)
    assert estimate.value_kT == pytest.approx(math.log(2))
    # The standard error of a log odds ratio.
    assert estimate.stderr_kT == pytest.approx(math.sqrt(1 / 300 + 1 / 600), rel=0.2)
    assert equal.ess_fraction == pytest.approx(1)


def test_the_state_is_an_interval_of_phi(ensemble: Ensemble) -> None:
    lower, upper = ensemble.target.state.interval
    np.testing.assert_array_equal(
        ensemble.in_state, (ensemble.phi > lower) & (ensemble.phi < upper)
    )
    assert 0 < ensemble.in_state.mean() < 1


def test_any_state_is_asked_for_by_its_condition(ensemble: Ensemble) -> None:
    np.testing.assert_array_equal(ensemble.state("phi in [0, 2]"), ensemble.in_state)
    oxygen, nitrogen = ensemble.positions_nm[:, 5], ensemble.positions_nm[:, 16]
    near = np.linalg.norm(oxygen - nitrogen, axis=1) < 0.4
    both = ensemble.state("distance(1:O,3:N) in [0, 0.4] and not phi in [0, 2]")
    np.testing.assert_array_equal(both, near & ~ensemble.in_state)
    with pytest.raises(InputError, match="the nearest is phi"):
        ensemble.state("phj in [0, 2]")


@pytest.mark.parametrize("half_precision", [False, True])
def test_a_file_gives_the_same_samples(
    generator: BoltzmannGenerator, ensemble: Ensemble, tmp_path: Path, half_precision: bool
) -> None:
    path = tmp_path / "generator.pt"
    generator.save(path, half_precision=half_precision)
    again = BoltzmannGenerator.load(path)
    assert again.molecule == generator.molecule
    assert again.metrics == generator.metrics
    samples = again.sample(20, seed=3, progress=False)
    tolerance = 5e-3 if half_precision else 1e-12
    first = generator.sample(20, seed=3, progress=False)
    np.testing.assert_allclose(samples.positions_nm, first.positions_nm, atol=tolerance)
    np.testing.assert_allclose(
        again.log_density(first.positions_nm), first.log_density, atol=40 * tolerance
    )


def test_a_run_leaves_its_file(finished_run: Path, generator: BoltzmannGenerator) -> None:
    left = BoltzmannGenerator.load(finished_run / "generator.pt")
    assert left.metrics == generator.metrics
    assert left.target_config.temperature_kelvin == 300.0


def test_positions_that_cannot_be_used(generator: BoltzmannGenerator) -> None:
    positions = np.repeat(generator.molecule.positions_nm[None], 3, axis=0)
    not_finite = positions.copy()
    not_finite[1, 2, 0] = np.nan
    for bad, message in (
        (10 * positions, "which are angstrom; divide by 10"),
        (1000 * positions, "check the unit"),
        (positions[:, :-1], r"shape \(batch, 22, 3\), got shape \(3, 21, 3\)"),
        (positions[0], r"got shape \(22, 3\)"),
        (not_finite, "1 conformations with NaN"),
    ):
        for evaluate in (generator.log_density, generator.reduced_potential, generator.log_weights):
            with pytest.raises(InputError, match=message):
                evaluate(bad)


def test_files_that_cannot_be_used(finished_run: Path, tmp_path: Path) -> None:
    shutil.copy(finished_run / "train_energy" / "energy.pt", tmp_path)
    (tmp_path / "torn.pt").write_bytes((finished_run / "generator.pt").read_bytes()[:5000])
    for name, message in (
        ("energy.pt", "kind generator"),
        ("torn.pt", "a complete generator file"),
        ("absent.pt", "a complete generator file"),
        ("", "a run's folder"),
    ):
        with pytest.raises(InputError, match=message):
            BoltzmannGenerator.load(tmp_path / name)


def test_hydrogens_numbered_the_other_way_round_change_nothing(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    usable = np.isfinite(ensemble.log_weights)
    positions = ensemble.positions_nm[usable][:5]
    swapped = positions.copy()
    for _, _, first, last in exchangeable_hydrogens(generator.molecule):
        swapped[:, [first, last]] = swapped[:, [last, first]]
    assert not np.allclose(swapped, positions)
    expected = generator.evaluate(positions)
    for given in (generator.evaluate(swapped), generator.evaluate(positions)):
        np.testing.assert_allclose(given.log_density, expected.log_density)
        np.testing.assert_allclose(given.log_weights, expected.log_weights)


def test_a_cis_peptide_bond_has_no_weight(generator: BoltzmannGenerator) -> None:
    molecule = generator.molecule
    # C of ACE, N and everything beyond turn about the bond between them by half a turn.
    carbon, nitrogen = 4, 6
    positions = molecule.positions_nm.copy()
    axis = positions[nitrogen] - positions[carbon]
    axis /= np.linalg.norm(axis)
    arms = positions[nitrogen:] - positions[nitrogen]
    positions[nitrogen:] = positions[nitrogen] + 2 * (arms @ axis)[:, None] * axis - arms
    trans, cis = generator.evaluate(np.stack([molecule.positions_nm, positions])).log_weights
    assert np.isfinite(trans)
    assert np.isneginf(cis)


def test_the_correction_of_the_run_enters_value_and_interval(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    alone = dataclasses.replace(ensemble, correction=None)
    assert not alone.verdict.reliable
    assert any("of sampling only" in reason for reason in alone.verdict.reasons)
    corrected = dataclasses.replace(ensemble, correction=Estimate(0.5, 0.2)).delta_f()
    plain = alone.delta_f()
    assert corrected.value_kT == pytest.approx(plain.value_kT + 0.5)
    assert corrected.stderr_kT == pytest.approx(math.hypot(plain.stderr_kT, 0.2))
    width = corrected.interval_kT[1] - corrected.value_kT
    narrow = plain.interval_kT[1] - plain.value_kT
    assert width == pytest.approx(math.hypot(narrow, 1.96 * 0.2), rel=1e-3)
    # The run annealed its samples; these are not, so theirs is that of one step.
    for which, known in (
        ("one_step_", ensemble.correction),
        ("", generator.correction(annealed=True)),
    ):
        expected = (generator.metrics[f"correction_{which}{x}kT"] for x in ("", "stderr_"))
        assert (known.value_kT, known.stderr_kT) == tuple(expected)


def test_exact_densities_on_request_are_those_of_the_emulator(
    generator: BoltzmannGenerator, ensemble: Ensemble
) -> None:
    measured = generator.sample(1100, seed=3, num_exact=1100, progress=False)
    np.testing.assert_array_equal(measured.positions_nm, ensemble.positions_nm)
    usable = np.isfinite(ensemble.log_weights)
    exact = measured.log_weights_exact
    assert np.isfinite(exact[usable]).all()
    assert np.isneginf(exact[~usable]).all()
    # The samples again from the same noise, one by one.
    z_prior = generator.emulator.path.sample_prior(1000, noise(3, "sample", 0))[:4]
    z, log_density, _ = generator.emulator.transport_with_log_density(z_prior)
    log_det = generator.emulator.coordinates.decode(z.double())[1]
    expected = -ensemble.reduced_potential[:4] - (log_density.double() - log_det).numpy()
    np.testing.assert_allclose(exact[:4][usable[:4]], expected[usable[:4]], atol=2e-3)
    np.testing.assert_allclose(measured.weights.log_weights, exact)
    some = generator.sample(1100, seed=3, num_exact=200, progress=False)
    assert some.num_random == 100
    known = ~np.isnan(some.log_weights_exact)
    assert known.sum() == 200
    assert known[:100].all()
    assert (known & some.in_state).sum() >= 50
    np.testing.assert_allclose(some.log_weights_exact[known], exact[known], atol=2e-3)
    with pytest.raises(InputError, match="num_exact"):
        generator.sample(100, num_exact=101)
    with pytest.raises(
        InputError, match="num_exact: expected at least 40, or of all samples, got 1"
    ):
        generator.sample(100, num_exact=1)


def test_too_few_exact_densities_are_refused_before_any_is_computed(
    generator: BoltzmannGenerator,
) -> None:
    for too_few in (20, 39):
        with pytest.raises(InputError, match="expected at least 40, or of all samples"):
            generator.sample(1100, seed=3, num_exact=too_few, progress=False)
    ensemble = generator.sample(1100, seed=3, num_exact=40, progress=False)
    assert math.isfinite(ensemble.delta_f().value_kT)


def test_a_rare_side_all_of_whose_samples_get_an_exact_density_is_enough() -> None:
    """All 20 of its samples are among its heaviest; every weight is the same by any density."""
    drawn = load_shipped("ACE-ALA-NME").sample(2000, seed=3, progress=False)
    rare = np.flatnonzero(drawn.in_state)[-20:]
    weights = np.where(drawn.in_state, -np.inf, 0.0)
    weights[rare] = 0.0
    ensemble = dataclasses.replace(drawn, log_weights=weights, correction=None)

    class Even:
        def transport_with_log_density(self, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
            zeros = torch.zeros(len(noise))
            return noise, zeros, zeros.bool()

    def with_number(num_exact: int) -> Ensemble:
        noise = torch.zeros(1000, 1)
        return with_exact(ensemble, np.zeros(2000), num_exact, Even(), lambda _: noise, 1000)

    found = with_number(80).delta_f()
    assert found.value_kT == pytest.approx(math.log((~drawn.in_state).sum() / 20))
    assert found.state.ess == pytest.approx(20)
    with pytest.raises(InputError, match=r"expected at least 40, .* ask for 40 or more"):
        with_number(20)


def test_folds_of_the_sampler_are_in_interval_and_verdict() -> None:
    """Every weight is the same; the sign of every tenth sample in the state is negative."""
    drawn = load_shipped("ACE-ALA-NME").sample(2000, seed=3, progress=False)
    ensemble = dataclasses.replace(drawn, log_weights=np.zeros(2000), correction=None)
    folded = np.zeros(2000, dtype=bool)
    folded[np.flatnonzero(drawn.in_state)[::10]] = True
    signs = torch.from_numpy(folded)

    class Folding:
        def transport_with_log_density(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return rows, torch.zeros(len(rows)), signs[rows]

    def with_sampler(sampler: object) -> Ensemble:
        batches = torch.arange(2000).split(1000)
        return with_exact(ensemble, np.zeros(2000), 2000, sampler, batches.__getitem__, 1000)  # type: ignore[arg-type]

    found = with_sampler(Folding())
    # The folded tenth is to be taken off twice.
    share = folded.sum() / drawn.in_state.sum()
    shift = -math.log(1 - 2 * share)
    numbers, even = found.diagnostics(), dataclasses.replace(found, inverted=None).delta_f()
    assert numbers["num_negative_determinants"] == folded.sum()
    assert numbers["delta_f_fold_shift_kT"] == pytest.approx(shift)
    low, high = found.delta_f().interval_kT
    assert low == pytest.approx(even.interval_kT[0])
    reach = even.interval_kT[1] - even.value_kT
    assert high == pytest.approx(even.value_kT + math.hypot(reach, shift))
    assert not found.verdict.reliable
    assert "lie where the sampler folds space" in " ".join(found.verdict.reasons)
    assert dataclasses.replace(found, inverted=np.zeros(2000, dtype=bool)).verdict.reliable


def test_what_a_field_never_met_is_in_every_verdict(generator: BoltzmannGenerator) -> None:
    new = {"num_residues": 3, "trained_lengths": [2], "unseen_types": ["ALA inner CA"]}
    stranger = dataclasses.replace(generator, metrics={**generator.metrics, **new})
    *_, length, types = stranger.sample(1100, seed=3, progress=False).verdict.reasons
    assert "chains of 2 residues, caps included, none of 3" in length
    assert "No training molecule has ALA inner CA" in types


def test_exact_densities_that_nobody_computed_are_not_counted(ensemble: Ensemble) -> None:
    numbers = ensemble.diagnostics()
    assert numbers["num_exact_in_state"] == numbers["num_exact_outside_state"] == 0
    assert "correction_in_state_kT" not in numbers


def test_annealing_is_a_configuration(generator: BoltzmannGenerator) -> None:
    for levels in (5, "auto"):
        with pytest.raises(InputError, match="annealing: expected an AnnealingConfig, got"):
            generator.sample(10, annealing=levels)  # type: ignore[arg-type]
    assert repr(generator) == f"BoltzmannGenerator({generator.molecule.name})"
