"""Exact likelihoods against a Gaussian, a brute-force Jacobian, and conservation on the torus."""

import math
from itertools import pairwise

import pytest
import torch

from bnce_dist.core.divergence import (
    exact_divergence,
    jacobian,
    log_density_along_ode,
    reverse_jacobian,
    sample_with_log_density,
)
from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.ode import midpoint, midpoint_step, time_grid
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.nn.velocity import InternalVelocity

PLANE = ProductPath(TrigonometricInterpolant(), num_euclidean=3)
MIXED = ProductPath(TrigonometricInterpolant(), num_euclidean=2, num_circular=2)
VARIANCE = torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64)


def gaussian_velocity(z, t):
    """Exact field of independent Gaussian data of the given variances."""
    cosine, sine = torch.cos(0.5 * math.pi * t), torch.sin(0.5 * math.pi * t)
    marginal = cosine[:, None] ** 2 * VARIANCE + sine[:, None] ** 2
    return 0.5 * math.pi * (cosine * sine)[:, None] * (1 - VARIANCE) / marginal * z


@pytest.fixture
def network():
    torch.manual_seed(0)
    return InternalVelocity(2, 2, width=16, depth=1).double()


def test_jacobian_and_divergence_equal_reverse_mode(network):
    z = MIXED.sample_prior(5, generator("z"), torch.float64)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(lambda x: network(x, t), z)
    expected = torch.stack([rows[i, :, i] for i in range(5)])
    torch.testing.assert_close(jacobian(lambda x: network(x, t), z, chunk_size=3), expected)
    torch.testing.assert_close(reverse_jacobian(lambda x: network(x, t), z), expected)
    trace = expected.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(exact_divergence(network, z, t), trace)


def test_gaussian_log_density_is_the_closed_form():
    random = generator("gaussian")
    z = VARIANCE.sqrt() * PLANE.sample_noise(20, random, torch.float64)
    expected = torch.distributions.Normal(0.0, VARIANCE.sqrt()).log_prob(z).sum(1)
    errors = []
    for num_steps in (100, 200):
        log_density = log_density_along_ode(gaussian_velocity, PLANE, z, num_steps)
        errors.append((log_density - expected).abs().max())
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] > 3.5


@pytest.mark.parametrize("differentiate", [jacobian, reverse_jacobian])
def test_sampled_log_density_is_that_of_the_discrete_map(network, differentiate):
    """Three coarse steps: the determinant of the whole map, differentiated end to end."""
    z_prior = MIXED.sample_prior(4, generator("prior"), torch.float64)

    def whole_map(z):
        for t, t_next in pairwise(time_grid(3, 1.0, 0.0, 1.0, like=z)):
            z = MIXED.wrap(midpoint_step(network, z, t, t_next))
        return z

    rows = torch.autograd.functional.jacobian(whole_map, z_prior)
    determinant = torch.stack([torch.det(rows[i, :, i]) for i in range(4)])
    samples, log_density, inverted = sample_with_log_density(
        network, MIXED, z_prior, 3, differentiate=differentiate
    )
    torch.testing.assert_close(samples, midpoint(network, z_prior, 3, wrap=MIXED.wrap))
    torch.testing.assert_close(log_density, MIXED.log_prior(z_prior) - determinant.abs().log())
    assert not inverted.any()


def test_steps_that_turn_space_inside_out_are_reported():
    """One step of -1 of sin(2 z): 1 - 2 sin(1) < 0 at pi / 4, and 1 + 4 at pi / 2."""
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2, num_circular=0)
    z_prior = torch.tensor([[math.pi / 4, 1.0], [math.pi / 2, 1.0]], dtype=torch.float64)

    def velocity(z, t):
        return torch.stack([torch.sin(2 * z[:, 0]), torch.zeros_like(z[:, 1])], dim=1)

    _, log_density, inverted = sample_with_log_density(velocity, path, z_prior, 1)
    assert inverted.tolist() == [True, False]
    determinant = torch.tensor([1 - 2 * math.sin(1), 5.0], dtype=torch.float64)
    expected = path.log_prior(z_prior) - determinant.abs().log()
    torch.testing.assert_close(log_density, expected)


def test_sampling_and_encoding_agree_as_steps_shrink(network):
    z_prior = MIXED.sample_prior(20, generator("prior"), torch.float64)
    samples, log_density, _ = sample_with_log_density(network, MIXED, z_prior, 100)
    again = log_density_along_ode(network, MIXED, samples, 100)
    torch.testing.assert_close(again, log_density, rtol=0, atol=1e-3)


def test_density_on_the_torus_integrates_to_one():
    torch.manual_seed(1)
    velocity = InternalVelocity(0, 1, width=16, depth=1).double()
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=0, num_circular=1)
    angles = 2 * math.pi * torch.arange(500, dtype=torch.float64)[:, None] / 500 - math.pi
    density = log_density_along_ode(velocity, path, angles, 100).exp()
    assert density.max() > 2 * density.min()
    assert abs(density.sum() * 2 * math.pi / 500 - 1) < 1e-3
