"""Conversions against a Gaussian whose marginals, scores and velocities are closed forms."""

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import (
    CircularInterpolant,
    LinearInterpolant,
    TrigonometricInterpolant,
    interpolant_from_name,
    velocity_from_endpoint,
    velocity_from_score,
)

INTERPOLANTS = [LinearInterpolant(), TrigonometricInterpolant(), CircularInterpolant()]
MEAN, VARIANCE = 0.7, 0.3
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def gaussian_truth(path, x_t, t):
    """Score, velocity and endpoint for data N(MEAN, VARIANCE), from Gaussian conditioning."""
    column = t[:, None]
    alpha, sigma = path.alpha(column), path.sigma(column)
    total = alpha**2 * VARIANCE + sigma**2
    score = -(x_t - alpha * MEAN) / total
    endpoint = MEAN + alpha * VARIANCE / total * (x_t - alpha * MEAN)
    noise = sigma / total * (x_t - alpha * MEAN)
    velocity = path.alpha_dot(column) * endpoint + path.sigma_dot(column) * noise
    return score, velocity, endpoint


@pytest.fixture
def points():
    random = torch.Generator().manual_seed(0)
    x_t = torch.randn(64, 3, generator=random, dtype=torch.float64)
    t = 0.05 + 0.9 * torch.rand(64, generator=random, dtype=torch.float64)
    return x_t, t


@pytest.mark.parametrize("path", INTERPOLANTS, ids=lambda path: type(path).__name__)
def test_conversions_agree_with_gaussian_conditioning(path, points):
    x_t, t = points
    score, velocity, endpoint = gaussian_truth(path, x_t, t)
    torch.testing.assert_close(velocity_from_score(path, x_t, score, t), velocity, **TOLERANCE)
    torch.testing.assert_close(
        velocity_from_endpoint(path, x_t, endpoint, t), velocity, **TOLERANCE
    )


@pytest.mark.parametrize("path", INTERPOLANTS, ids=lambda path: type(path).__name__)
def test_dotted_schedules_are_the_derivatives(path):
    t = torch.linspace(0.01, 0.99, 25, dtype=torch.float64, requires_grad=True)
    for schedule, derivative in [(path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)]:
        # The zero keeps constant schedules in the graph.
        (slope,) = torch.autograd.grad((schedule(t) + 0 * t).sum(), t)
        torch.testing.assert_close(derivative(t.detach()), slope)


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_ends_are_data_and_standard_normal_noise(name):
    path = interpolant_from_name(name)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(path.alpha(ends), 1 - ends)
    torch.testing.assert_close(path.sigma(ends), ends)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="linear, trigonometric, got 'cosine'"):
        interpolant_from_name("cosine")


@pytest.mark.parametrize(("scale", "power"), [(0.0, 1.5), (4.0, 0.5), (float("nan"), 1.5)])
def test_circular_schedule_is_checked(scale, power):
    with pytest.raises(InputError, match="circular interpolant"):
        CircularInterpolant(scale, power)
