"""Every density against an independent evaluation, every sampler against its density."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.core.systems import (
    SYSTEMS,
    Checkerboard,
    EightGaussians,
    Rings,
    TwoMoons,
    grid,
    system_from_name,
)

POINTS = 4 * torch.rand(200, 2, generator=generator("points"), dtype=torch.float64) - 2


def test_grid_holds_the_centres_of_equal_cells():
    points, area = grid(2.0, 4)
    assert area == 1.0
    line = [-1.5, -0.5, 0.5, 1.5]
    assert points.tolist() == [[x, y] for x in line for y in line]


@pytest.mark.parametrize("name", SYSTEMS)
def test_densities_are_normalised_within_the_square(name):
    system = system_from_name(name)
    points, area = grid(system.half_width, 200)
    inside = float(system.log_density(points).exp().sum() * area)
    assert inside == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("name", SYSTEMS)
def test_samples_fill_cells_as_the_density_says(name):
    """Chi-square over cells of 0.2, which halve those of the checkerboard."""
    system, num_samples, cells, fine = system_from_name(name), 200_000, 20, 10
    x = system.sample(num_samples, generator("samples", name))
    assert x.shape == (num_samples, 2)
    assert x.dtype == torch.float64
    assert torch.isfinite(system.log_density(x)).all()
    edges = np.linspace(-system.half_width, system.half_width, cells + 1)
    counts, *_ = np.histogram2d(*x.T.numpy(), bins=[edges, edges])
    points, area = grid(system.half_width, cells * fine)
    density = system.log_density(points).exp().reshape(cells, fine, cells, fine)
    expected = num_samples * area * density.sum((1, 3)).numpy()
    assert counts[expected < 1e-9].sum() == 0
    full = expected > 5
    statistic = ((counts - expected)[full] ** 2 / expected[full]).sum()
    assert 1e-3 < stats.chi2.sf(statistic, full.sum() - 1) < 1 - 1e-3


def test_eight_gaussians_are_the_mixture_of_torch_distributions():
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    centres = torch.stack([angles.cos(), angles.sin()], 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(8, dtype=torch.float64)),
        torch.distributions.MultivariateNormal(centres, 0.01 * torch.eye(2, dtype=torch.float64)),
    )
    torch.testing.assert_close(EightGaussians().log_density(POINTS), mixture.log_prob(POINTS))


def test_checkerboard_cells_are_those_published():
    """Cells of 0.4 whose numbers, counted from the origin, have an even sum."""
    filled = (torch.floor(POINTS / 0.4).sum(1) % 2 == 0).numpy()
    log_density = Checkerboard().log_density(POINTS).numpy()
    np.testing.assert_allclose(log_density[filled], -math.log(8))
    assert np.isneginf(log_density[~filled]).all()
    assert np.isneginf(Checkerboard().log_density(torch.tensor([[2.1, 0.1], [0.1, -2.3]]))).all()


def test_two_moons_agree_with_adaptive_quadrature():
    def density(x, y):
        def along_both_arcs(angle):
            a, b = math.cos(angle) - 0.5, math.sin(angle) - 0.25
            squares = ((x - a) ** 2 + (y - b) ** 2, (x + a) ** 2 + (y + b) ** 2)
            return sum(math.exp(-50 * square) for square in squares) / (0.02 * math.pi)

        nearest = [math.atan2(k * y + 0.25, k * x + 0.5) % (2 * math.pi) for k in (1, -1)]
        breaks = [angle for angle in nearest if angle < math.pi]
        integral = integrate.quad(
            along_both_arcs, 0, math.pi, points=breaks, epsabs=0, epsrel=1e-10, limit=200
        )
        return integral[0] / (2 * math.pi)

    expected = [density(x, y) for x, y in POINTS[:40].tolist()]
    got = TwoMoons().log_density(POINTS[:40]).exp().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-30)


def test_the_radius_in_a_ring_follows_the_rice_distribution():
    rings = Rings()
    radius = np.linspace(0.05, 1.95, 60)
    expected = np.mean([stats.rice.pdf(radius, r / 0.08, scale=0.08) for r in rings.radii], axis=0)
    x = torch.from_numpy(np.stack([0.6 * radius, 0.8 * radius], 1))
    got = rings.log_density(x).exp().numpy() * 2 * math.pi * radius
    np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize("name", SYSTEMS)
def test_single_precision_is_enough_for_the_density(name):
    system = system_from_name(name)
    torch.testing.assert_close(
        system.log_density(POINTS.float()).double(),
        system.log_density(POINTS),
        rtol=1e-4,
        atol=1e-3,
    )


def test_an_unknown_system_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"gaussian8.*nearest is gaussians8"):
        system_from_name("gaussian8")
