"""Distances and samples of densities whose marginals are known at every time."""

import math

import pytest
import torch
from torch import Tensor, nn

from bnce_dist.core.interpolant import LinearInterpolant, TrigonometricInterpolant
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.runs.planar.density import PlanarDensity, grid_metrics

CENTRES = torch.tensor(
    [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)], dtype=torch.float64
)
SPREAD = 0.1


class ExactEnergy(EnergyModel):
    """Log density of the eight Gaussians on their way to noise, plus functions no objective sees.

    Args:
        path: From data to noise.
        of_x: Weight of an added function of the point, which InfoNCE cannot see.
        constant: An added constant.
    """

    def __init__(self, path: ProductPath, of_x: float = 0.0, constant: float = 0.0) -> None:
        super().__init__()
        self.path, self.of_x, self.constant = path, of_x, constant
        self.precision = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.path.euclidean.alpha(t), self.path.euclidean.sigma(t)
        variance = (alpha * SPREAD).square() + sigma.square()
        squared = (z[:, None] - alpha[:, None, None] * CENTRES.to(z)).square().sum(2)
        log_p = (-0.5 * squared / variance[:, None]).logsumexp(1) - torch.log(
            16 * math.pi * variance
        )
        return log_p + self.of_x * torch.sin(3 * z[:, 0]) + self.constant

    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        return torch.stack([self(z, time.expand(len(z))) for time in times], dim=1)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        return self(z, t), self.at_times(z, times)


class Objective(nn.Module):
    def __init__(self, energy_model: ExactEnergy) -> None:
        super().__init__()
        self.energy_model, self.path = energy_model, energy_model.path


def exact(of_x: float = 0.0, constant: float = 0.0) -> Objective:
    path = ProductPath(TrigonometricInterpolant(), 2)
    return Objective(ExactEnergy(path, of_x, constant))


def test_the_exact_marginals_are_at_no_distance() -> None:
    metrics = grid_metrics("gaussians8", 100, exact(constant=7.0))
    assert set(metrics) == {"kl_grid", "kl_normalised", "log_z_error"}
    # The data's tails at t = 1 and the rounding of float64; nothing else.
    assert all(abs(value) < 1e-6 for value in metrics.values()), metrics


def test_what_infonce_cannot_see_spoils_the_raw_density_alone() -> None:
    metrics = grid_metrics("gaussians8", 100, exact(of_x=0.8))
    assert abs(metrics["kl_normalised"]) < 1e-6
    assert abs(metrics["log_z_error"]) < 1e-6
    # KL(p || p exp(c) / Z) = log E[exp c] - E[c], over the true density.
    noise = torch.randn(400_000, 2, generator=torch.manual_seed(1), dtype=torch.float64)
    x = CENTRES.repeat(50_000, 1) + SPREAD * noise
    c = 0.8 * torch.sin(3 * x[:, 0])
    expected = float(c.exp().mean().log() - c.mean())
    assert metrics["kl_grid"] == pytest.approx(expected, rel=0.01)
    assert expected > 0.05


def test_a_density_of_another_place_is_at_the_distance_of_the_closed_form() -> None:
    # The checkerboard is uniform on area 8: KL = -log 8 - E[log q] with q the eight Gaussians.
    metrics = grid_metrics("checkerboard", 100, exact())
    edges = torch.arange(10) * 0.4 - 2.0
    column, row = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    filled = (column + row) % 2 == 0
    place = 0.4 * torch.rand(2000, 50, 2, generator=torch.manual_seed(2), dtype=torch.float64)
    corners = torch.stack([edges[column[filled]], edges[row[filled]]], dim=1)
    x = (corners + place).flatten(0, 1)
    log_q = exact().energy_model(x, x.new_zeros(len(x)))
    expected = -math.log(8) - float(log_q.mean().detach())
    assert metrics["kl_normalised"] == pytest.approx(expected, rel=0.01)
    assert abs(metrics["log_z_error"]) < 1e-6


@pytest.mark.parametrize("schedule", [TrigonometricInterpolant(), LinearInterpolant()])
def test_the_flow_of_the_exact_score_draws_from_the_data(
    schedule: TrigonometricInterpolant | LinearInterpolant,
) -> None:
    model = ExactEnergy(ProductPath(schedule, 2))
    x = PlanarDensity(model, model.path).sample(4000, generator(3)).double()
    distances = torch.cdist(x, CENTRES)
    nearest = distances.argmin(1)
    counts = torch.bincount(nearest, minlength=8).double()
    assert ((counts - 500).square() / 500).sum() < 24.3  # 99.9 % of chi-square with 7 degrees
    spread = (x - CENTRES[nearest]).square().mean().sqrt()
    assert float(spread) == pytest.approx(SPREAD, rel=0.05)
