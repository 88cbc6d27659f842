import numpy as np
import pytest

from bnce_dist.report.histograms import free_energy_surface, replica_profile

NUM_BINS = 60


def exact_profile(target, num_bins: int = NUM_BINS) -> np.ndarray:
    """Return -ln of the bin averages of the closed form."""
    fine = 2 * np.pi * ((np.arange(50 * num_bins) + 0.5) / (50 * num_bins) - 0.5)
    density = np.exp(target.log_density_phi(fine)).reshape(num_bins, 50).mean(1)
    return -np.log(density)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_profile_is_minus_the_log_of_the_density(target, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    if weighted:
        phi = rng.uniform(-np.pi, np.pi, 200_000)
        log_weights = target.log_density_phi(phi) + 12.0
    else:
        phi, log_weights = target.sample(200_000, rng)[:, 0], np.zeros(200_000)
    profile = replica_profile(phi, log_weights, np.arange(200_000) % 50, num_bins=NUM_BINS)
    exact = exact_profile(target)
    np.testing.assert_allclose(profile.centres, -np.pi + (np.arange(60) + 0.5) * np.pi / 30)
    common = exact < 6
    share = np.exp(-exact[common]) * 2 * np.pi / NUM_BINS
    # Counts in a bin: of the target's samples, or of the uniform ones.
    stderr = np.sqrt((NUM_BINS if weighted else 1 / share) / 200_000)
    assert (np.abs(profile.value_kT[common] - exact[common]) < 5 * stderr).all()
    covered = (profile.lower_kT <= exact) & (exact <= profile.upper_kT)
    assert covered[common].mean() > 0.8


def test_the_band_of_independent_frames_has_the_binomial_width(target) -> None:
    phi = target.sample(40_000, np.random.default_rng(2))[:, 0]
    profile = replica_profile(phi, np.zeros(40_000), np.arange(40_000) % 400, num_bootstrap=2_000)
    exact = exact_profile(target)
    common = exact < 4
    share = np.exp(-exact[common]) * 2 * np.pi / NUM_BINS
    stderr = np.sqrt((1 - share) / (40_000 * share))
    width = profile.upper_kT[common] - profile.lower_kT[common]
    np.testing.assert_allclose(width.mean() / (2 * 1.96 * stderr).mean(), 1, atol=0.1)


def test_copies_of_frames_within_a_replica_do_not_narrow_the_band(target) -> None:
    phi = target.sample(2_000, np.random.default_rng(3))[:, 0]
    replica = np.arange(2_000) % 40
    once = replica_profile(phi, np.zeros(2_000), replica)
    copied = replica_profile(np.repeat(phi, 9), np.zeros(18_000), np.repeat(replica, 9))
    np.testing.assert_allclose(copied.lower_kT, once.lower_kT)
    np.testing.assert_allclose(copied.upper_kT, once.upper_kT)


def test_the_surface_is_relative_to_its_deepest_bin() -> None:
    phi = np.radians([60.5, 60.5, -90.5])
    psi = np.radians([-120.5, -120.5, 30.5])
    surface = free_energy_surface(phi, psi, np.log([3.0, 1.0, 1.0]), num_bins=360)
    assert surface[240, 59] == 0
    assert surface[89, 210] == pytest.approx(np.log(4.0))
    assert np.isfinite(surface).sum() == 2


def test_a_single_replica_shows_no_band() -> None:
    profile = replica_profile(np.zeros(100), np.zeros(100), np.zeros(100, dtype=int))
    assert np.isnan([profile.lower_kT, profile.upper_kT]).all()
    assert np.isfinite(profile.value_kT).any()
