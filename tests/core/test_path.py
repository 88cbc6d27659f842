"""The product path against closed forms on the line and on the circle."""

import math

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import CircularInterpolant, TrigonometricInterpolant
from bnce_dist.core.path import ProductPath, wrap_angle
from bnce_dist.core.random import generator

PATH = ProductPath(TrigonometricInterpolant(), num_euclidean=3, num_circular=2)


def test_wrap_angle_is_the_representative_in_the_half_open_interval():
    angle = torch.tensor([-3 * math.pi, -math.pi, 0.0, 1.0, math.pi, 7.0], dtype=torch.float64)
    wrapped = wrap_angle(angle)
    assert ((wrapped > -math.pi) & (wrapped <= math.pi)).all()
    torch.testing.assert_close(
        torch.polar(torch.ones_like(angle), angle), torch.polar(torch.ones_like(angle), wrapped)
    )


def test_velocity_target_is_the_time_derivative_of_interpolate():
    random = generator("path")
    x_data, x_noise = (
        PATH.sample_prior(50, random, torch.float64),
        PATH.sample_noise(50, random, torch.float64),
    )
    t = 0.02 + 0.96 * torch.rand(50, generator=random, dtype=torch.float64)
    _, derivative = torch.func.jvp(
        lambda time: PATH.interpolate(x_data, x_noise, time), (t,), (torch.ones_like(t),)
    )
    torch.testing.assert_close(PATH.velocity_target(x_data, x_noise, t), derivative)


def test_ends_are_data_and_prior():
    random = generator("ends")
    x_data = PATH.sample_prior(20_000, random, torch.float64)
    x_noise = PATH.sample_noise(20_000, random, torch.float64)
    zeros, ones = torch.zeros(20_000, dtype=torch.float64), torch.ones(20_000, dtype=torch.float64)
    torch.testing.assert_close(PATH.interpolate(x_data, x_noise, zeros), x_data)
    concentrated = torch.full_like(x_data, 0.3)
    end = PATH.interpolate(concentrated, x_noise, ones)
    torch.testing.assert_close(end[:, :3], x_noise[:, :3])
    # Circular means of 20,000 uniform angles have standard error 0.005.
    assert torch.polar(torch.ones_like(end[:, 3:]), end[:, 3:]).mean(0).abs().max() < 0.025


def test_regressing_the_noise_gives_the_score_of_the_wrapped_density():
    """E[eps | theta_t] from the sum over images equals -sigma times the gradient of log p_t."""
    circular = CircularInterpolant()
    t = torch.tensor(0.5, dtype=torch.float64)
    sigma = circular.sigma(t)
    theta = torch.linspace(-3.1, 3.1, 41, dtype=torch.float64, requires_grad=True)
    images = 0.8 + 2 * math.pi * torch.arange(-6, 7, dtype=torch.float64)
    log_terms = -0.5 * ((theta[:, None] - images) / sigma) ** 2
    (score,) = torch.autograd.grad(log_terms.logsumexp(1).sum(), theta)
    random = generator("images")
    noise = torch.randn(2_000_000, generator=random, dtype=torch.float64)
    theta_t = wrap_angle(0.8 + sigma * noise)
    for where, expected in zip(theta.tolist()[::8], (-sigma * score)[::8], strict=True):
        near = wrap_angle(theta_t - where).abs() < 0.02
        error = noise[near].std() / near.sum().sqrt()
        assert abs(noise[near].mean() - expected) < 4 * error + 0.01


def test_log_prior_is_normalised():
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=1, num_circular=1)
    line = torch.linspace(-8, 8, 401, dtype=torch.float64)
    circle = wrap_angle(2 * math.pi * torch.arange(50, dtype=torch.float64) / 50)
    density = path.log_prior(torch.cartesian_prod(line, circle)).exp()
    cell = (line[1] - line[0]) * 2 * math.pi / 50
    assert abs(density.sum() * cell - 1) < 1e-10


def test_scales_are_root_mean_squares():
    random = generator("scales")
    x_data = PATH.sample_noise(200_000, random, torch.float64)
    x_noise = PATH.sample_noise(200_000, random, torch.float64)
    t = torch.full((200_000,), 0.3, dtype=torch.float64)
    measured = PATH.velocity_target(x_data, x_noise, t).square().mean(0).sqrt()
    torch.testing.assert_close(measured, PATH.velocity_scale(t)[0], rtol=0.01, atol=0)
    expected = torch.tensor([math.sin(0.15 * math.pi)] * 3 + [4 * 0.3**1.5] * 2)
    torch.testing.assert_close(PATH.noise_scale(t)[0], expected.double())


def test_a_path_needs_a_coordinate():
    with pytest.raises(InputError, match="at least one coordinate"):
        ProductPath(TrigonometricInterpolant(), num_euclidean=0)
