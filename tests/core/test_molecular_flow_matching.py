"""Molecules of different sizes in one batch, against each of them alone and a closed form."""

import pytest
import torch
from torch import Tensor, nn

from bnce_dist.core.couplings import COUPLINGS, independent
from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching, pack_conformations
from bnce_dist.core.random import generator

SIZES = (5, 3)
FEATURES = [torch.eye(size, 6) for size in SIZES]
PATH = TrigonometricInterpolant()


class Field(nn.Module):
    """Returns what a function gives for positions and times, plus what must not matter."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def velocity(self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor) -> Tensor:
        motion_of_all = torch.arange(len(positions))[:, None, None] * torch.ones(1, 1, 3)
        in_the_padding = 7.0 * (1 - mask)[..., None]
        return self.function(positions, t[:, None, None]) + motion_of_all + in_the_padding


def objective_of(function, coupling=independent) -> MolecularFlowMatching:
    return MolecularFlowMatching(Field(function), PATH, FEATURES, coupling=coupling)


def conformations(number: int, sd: float = 1.0) -> list[Tensor]:
    return [sd * torch.randn(number, size, 3, generator=generator(size)) for size in SIZES]


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_batch_holds_turned_data_and_noise_of_the_same_molecules(coupling: str) -> None:
    data = conformations(400)
    objective = objective_of(lambda x, t: x, COUPLINGS[coupling])
    drawn = objective.draw(pack_conformations(data), generator("draw"))
    for index, (size, own) in enumerate(zip(SIZES, data, strict=True)):
        rows = drawn["molecule"] == index
        turned, noise = drawn["x_data"][rows], drawn["x_noise"][rows]
        assert rows.sum() == 400
        assert not turned[:, size:].any()
        assert not noise[:, size:].any()
        assert turned.mean(1).abs().max() < 1e-6
        assert noise.sum(1).abs().max() < 1e-5
        torch.testing.assert_close(
            torch.cdist(turned[:, :size], turned[:, :size]), torch.cdist(own, own)
        )
        assert (turned[:, :size] - own).abs().max() > 0.1
        # Standard normal in 3 (N - 1) dimensions: sd of the mean square is sqrt(2 / samples).
        mean_square = noise.square().sum() / (400 * 3 * (size - 1))
        assert abs(mean_square - 1) < 4 * (2 / (400 * 3 * (size - 1))) ** 0.5


def test_times_cover_the_interval() -> None:
    t = objective_of(lambda x, t: x).draw(pack_conformations(conformations(50)), generator(0))["t"]
    assert t.sort().values.tolist() == pytest.approx(
        [(index + 0.5) / 100 for index in range(100)], abs=0.005
    )
    assert (t.diff() < 0).any()


def test_the_loss_is_the_mean_over_molecules_alone() -> None:
    """The mean motion and the padding, which the field fills with junk, do not count."""
    objective = objective_of(lambda x, t: 0.5 * x)
    drawn = objective.draw(pack_conformations(conformations(3)), generator("draw"))
    losses = []
    for index, size in enumerate(SIZES):
        for row in (drawn["molecule"] == index).nonzero().flatten():
            x, noise, t = (drawn[name][row].double() for name in ("x_data", "x_noise", "t"))
            angle = 0.5 * torch.pi * t
            x_t = angle.cos() * x[:size] + angle.sin() * noise[:size]
            derivative = angle.cos() * noise[:size] - angle.sin() * x[:size]
            error = 0.5 * x_t / (0.5 * torch.pi) - derivative
            losses.append(error.square().sum() / (3 * (size - 1)))
    assert objective(**drawn)["loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_velocity_of_gaussian_molecules_minimises_the_loss() -> None:
    sd = 0.6
    packed = pack_conformations(conformations(2000, sd))

    def scaled(factor: float):
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = PATH.alpha(t), PATH.sigma(t)
            slope = PATH.alpha_dot(t) * alpha * sd**2 + PATH.sigma_dot(t) * sigma
            return factor * slope / (alpha**2 * sd**2 + sigma**2) * x

        return velocity

    losses = {}
    for factor in (0.8, 1.0, 1.2):
        objective = objective_of(scaled(factor))
        losses[factor] = float(objective(**objective.draw(packed, generator("draw")))["loss"])
    assert losses[1.0] < min(losses[0.8], losses[1.2])
