"""Solvers against a linear field whose flow is a closed form."""

import math
from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint

from bnce_dist.core.errors import InputError
from bnce_dist.core.ode import midpoint
from bnce_dist.core.path import wrap_angle


def spiral(z, t):
    """Velocity whose flow from 1 to 0 scales by exp(-1/2) and turns by -1 radian."""
    turned = torch.stack([-z[:, 1], z[:, 0]], dim=1)
    return t[:, None] * z + 2 * t[:, None] * turned


def spiral_flow(z):
    cosine, sine = math.cos(-1.0), math.sin(-1.0)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=z.dtype)
    return math.exp(-0.5) * z @ rotation.T


@pytest.fixture
def z():
    return torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("time_exponent", [1.0, 1.7])
def test_midpoint_converges_at_second_order(z, time_exponent):
    errors = [
        (midpoint(spiral, z, n, time_exponent=time_exponent) - spiral_flow(z)).norm()
        for n in (20, 40, 80)
    ]
    for coarse, fine in pairwise(errors):
        assert 3.6 < coarse / fine < 4.4


def test_midpoint_back_and_forth_is_the_identity(z):
    end = midpoint(spiral, z, 200)
    back = midpoint(spiral, end, 200, t_start=0.0, t_end=1.0)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-4)


def test_midpoint_agrees_with_an_adaptive_method_on_a_nonlinear_field(z):
    def pendulum(z, t):
        return torch.stack([z[:, 1], -torch.sin(z[:, 0])], dim=1) * (1 + t[:, None])

    times = torch.tensor([1.0, 0.0], dtype=z.dtype)
    field = lambda t, z: pendulum(z, t.expand(len(z)))  # noqa: E731
    expected = odeint(field, z, times, rtol=1e-9, atol=1e-9, method="dopri5")[-1]
    torch.testing.assert_close(midpoint(pendulum, z, 400), expected, rtol=0, atol=2e-5)


def test_wrap_changes_only_the_representative(z):
    def turning(z, t):
        return 9 + torch.cos(z) * t[:, None]

    free, wrapped = midpoint(turning, z, 50), midpoint(turning, z, 50, wrap=wrap_angle)
    assert wrapped.abs().max() <= math.pi
    torch.testing.assert_close(wrap_angle(free), wrapped, rtol=0, atol=1e-5)


def test_no_steps_is_refused(z):
    with pytest.raises(InputError, match="num_steps: expected at least 1, got 0"):
        midpoint(spiral, z, 0)
