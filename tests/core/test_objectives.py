"""Objectives against closed-form minimisers, and the reduction that data parallelism relies on."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import (
    EnergyMatching,
    FlowMatching,
    IndependentNegatives,
    stratified_times,
)
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.nn.concatenated_energy import ConcatenatedEnergy
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.velocity import InternalVelocity

PATH = ProductPath(TrigonometricInterpolant(), num_euclidean=3, num_circular=2)
SMALL = {"width": 16, "depth": 1}
HYBRID = {
    "score_weight": 1.0,
    "infonce_weight": 2.0,
    "num_negatives": 128,
    "negatives": "stratified",
    "time_exponent": 2.5,
}


def make_objective(kind):
    torch.manual_seed(0)
    if kind == "flow":
        return FlowMatching(InternalVelocity(3, 2, **SMALL).double(), PATH)
    if kind == "published":
        model = ConcatenatedEnergy(3, 2, **SMALL).double()
        return EnergyMatching(
            model, PATH, **HYBRID | {"num_negatives": 1, "negatives": "independent"}
        )
    model = LateFusionEnergy(3, 2, num_features=8, time_width=8, **SMALL).double()
    weights = {"score": {"infonce_weight": 0.0}, "infonce": {"score_weight": 0.0}}.get(kind, {})
    return EnergyMatching(model, PATH, **HYBRID | {"num_negatives": 12} | weights)


@pytest.fixture(params=["flow", "hybrid", "score", "infonce", "published"])
def objective(request):
    return make_objective(request.param)


def test_shards_average_to_the_global_gradient(objective):
    x_data = PATH.sample_prior(24, generator("data"), torch.float64)
    batch = objective.draw(x_data, generator("draw"))
    objective(**batch)["loss"].backward()
    expected = {name: weight.grad.clone() for name, weight in objective.named_parameters()}
    objective.zero_grad()
    for rank in range(4):
        rows = slice(6 * rank, 6 * rank + 6)
        shard = {k: v if k in objective.shared else v[rows] for k, v in batch.items()}
        (objective(**shard)["loss"] / 4).backward()
    for name, weight in objective.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["flow", "hybrid", "published"])
def test_every_parameter_gets_a_gradient(kind):
    objective = make_objective(kind)
    x_data = PATH.sample_prior(24, generator("data"), torch.float64)
    objective(**objective.draw(x_data, generator("draw")))["loss"].backward()
    flat = [name for name, weight in objective.named_parameters() if not weight.grad.abs().max()]
    assert flat == []


def test_draw_depends_on_the_generator_only(objective):
    x_data = PATH.sample_prior(8, generator("data"))
    first, again, other = (objective.draw(x_data, generator(key)) for key in (1, 1, 2))
    for key in first:
        torch.testing.assert_close(first[key], again[key], rtol=0, atol=0)
    assert not torch.equal(first["t"], other["t"])
    assert {value.dtype for value in first.values()} == {torch.float32}


def test_losses_can_be_evaluated_without_gradients(objective):
    batch = objective.draw(PATH.sample_prior(8, generator("data"), torch.float64), generator(0))
    with_graph = objective(**batch)["loss"]
    with torch.no_grad():
        without = objective(**batch)["loss"]
    torch.testing.assert_close(without, with_graph.detach())


def test_stratified_times_have_one_per_stratum():
    times = stratified_times(100, 2.5, generator(0), like=torch.zeros(1, dtype=torch.float64))
    assert torch.equal((times**0.4 * 100).floor(), torch.arange(100, dtype=torch.float64))


def test_independent_times_follow_the_time_distribution():
    x_data = torch.zeros(2000, 5, dtype=torch.float64)
    times = IndependentNegatives(5, 2.5).draw(x_data, generator(0))
    assert times.shape == (2000, 5)
    assert stats.kstest(times.flatten() ** 0.4, "uniform").pvalue > 1e-3
    assert times.T.corrcoef().fill_diagonal_(0).abs().max() < 0.1


class Counting(nn.Module):
    """An energy model that records how it is called."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.calls = []

    def forward(self, z, t):
        self.calls.append("own")
        return -0.5 * self.slope * z.square().sum(1)

    def forward_with_times(self, z, t, times):
        self.calls.append("with gradient" if z.requires_grad else "without gradient")
        return self.slope * t, self.slope * times.expand(len(z), -1)


@pytest.mark.parametrize("negatives", ["stratified", "independent"])
def test_a_term_without_weight_is_not_computed(negatives):
    x_data = PATH.sample_prior(8, generator("data"), torch.float64)

    def terms_and_calls(**weights):
        objective = EnergyMatching(Counting(), PATH, **HYBRID | {"negatives": negatives} | weights)
        losses = objective(**objective.draw(x_data, generator(0)))
        return set(losses), objective.energy_model.calls

    assert terms_and_calls(infonce_weight=0.0) == ({"loss", "score"}, ["own"])
    assert terms_and_calls(score_weight=0.0) == ({"loss", "infonce"}, ["without gradient"])


@pytest.mark.parametrize("negatives", ["stratified", "independent"])
def test_weights_weigh_the_parts(negatives):
    torch.manual_seed(0)
    model = LateFusionEnergy(3, 2, **SMALL).double()
    both, score, infonce = (
        EnergyMatching(
            model,
            PATH,
            **HYBRID | {"score_weight": s, "infonce_weight": i, "negatives": negatives},
        )
        for s, i in [(3.0, 5.0), (3.0, 0.0), (0.0, 5.0)]
    )
    batch = both.draw(PATH.sample_prior(8, generator("data"), torch.float64), generator(0))
    loss = score(**batch)["loss"] + infonce(**batch)["loss"]
    torch.testing.assert_close(both(**batch)["loss"], loss)


class GaussianTruth(nn.Module):
    """Energy and velocity of Gaussian data: exact up to ``gauge sin(z)`` and an error in c(t)."""

    def __init__(self, variance, error=0.0, gauge=1.0):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(variance, dtype=torch.float64))
        self.error = error
        self.gauge = gauge

    def marginal_variance(self, t):
        return torch.cos(0.5 * math.pi * t) ** 2 * self.variance + torch.sin(0.5 * math.pi * t) ** 2

    def forward(self, z, t):
        """Velocity: half the rate of change of the log variance."""
        cosine_sine = torch.cos(0.5 * math.pi * t) * torch.sin(0.5 * math.pi * t)
        rate = 0.5 * math.pi * (1 - self.variance) * cosine_sine / self.marginal_variance(t)
        return rate[:, None] * z

    def energy(self, z, t):
        variance = self.marginal_variance(t)
        log_normaliser = (0.5 * z.shape[-1] + self.error) * torch.log(variance)
        gauge = self.gauge * torch.sin(z).sum(-1)
        return -0.5 * z.square().sum(-1) / variance - log_normaliser + gauge

    def forward_with_times(self, z, t, times):
        return self.energy(z, t), self.energy(z[:, None], times.expand(len(z), -1))


@pytest.mark.parametrize("num_negatives", [1, 7])
@pytest.mark.parametrize("negatives", ["stratified", "independent"])
def test_infonce_is_minimised_by_the_truth_for_any_number_of_negatives(num_negatives, negatives):
    """The gradient at the true density vanishes; a wrong c(t) of 0.1 log variance does not."""
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2)
    variance = 0.01

    def slope(error):
        model = GaussianTruth(variance, error)
        objective = EnergyMatching(
            model,
            path,
            score_weight=0.0,
            infonce_weight=1.0,
            num_negatives=num_negatives,
            negatives=negatives,
            time_exponent=2.5,
        )
        gradients = []
        for step in range(200):
            x_data = math.sqrt(variance) * path.sample_noise(500, generator(step), torch.float64)
            batch = objective.draw(x_data, generator("draw", step))
            loss = objective(**batch)["loss"]
            gradients.append(torch.autograd.grad(loss, model.variance)[0])
        stacked = torch.stack(gradients)
        return stacked.mean(), stacked.std() / math.sqrt(len(stacked))

    mean, error = slope(0.0)
    assert abs(mean) < 4 * error
    mean, error = slope(0.1)
    assert abs(mean) > 8 * error


def test_score_loss_of_the_true_score_is_the_posterior_variance_of_the_noise():
    """Var[eps | x_t] = alpha^2 v / (alpha^2 v + sigma^2), here averaged over t by quadrature."""
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2)
    model = GaussianTruth(0.3, gauge=0.0)
    objective = EnergyMatching(model, path, **HYBRID | {"time_exponent": 1.0})
    x_data = math.sqrt(0.3) * path.sample_noise(100_000, generator("data"), torch.float64)
    with torch.no_grad():
        score = objective(**objective.draw(x_data, generator("draw")))["score"]
        t = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        signal = torch.cos(0.5 * math.pi * t) ** 2 * 0.3
        expected = (signal / model.marginal_variance(t)).mean()
    assert abs(score - expected) < 0.005


def test_flow_matching_is_stationary_at_the_true_velocity():
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2)
    model = GaussianTruth(0.3)
    objective = FlowMatching(model, path)
    x_data = math.sqrt(0.3) * path.sample_noise(200_000, generator("data"), torch.float64)
    batch = objective.draw(x_data, generator("draw"))
    at_truth = objective(**batch)["loss"].item()
    for wrong in (0.25, 0.35):
        model.variance.data.fill_(wrong)
        assert objective(**batch)["loss"].item() > at_truth + 1e-4


MEANS = torch.tensor([[-1.0, 0.5], [1.0, -0.5], [0.3, 1.2]])
SPREAD = 0.25


def mixture_log_density(x):
    squared = (x[:, None] - MEANS).square().sum(2) / SPREAD**2
    return (-0.5 * squared).logsumexp(1) - math.log(3 * 2 * math.pi * SPREAD**2)


def train_energy(model, path, sample, num_steps):
    objective = EnergyMatching(model, path, **HYBRID)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in range(num_steps):
        random = generator("train", step)
        optimizer.zero_grad()
        objective(**objective.draw(sample(256, random), random))["loss"].backward()
        optimizer.step()
        schedule.step()


def log_z_and_divergence(model, path, grid, truth, cell):
    with torch.no_grad():
        learned = model.log_density_z(grid, path).double()
    log_z = learned.logsumexp(0) + math.log(cell)
    return log_z, (truth.exp() * (truth - learned)).sum() * cell


def test_the_read_out_is_the_normalised_density_of_a_mixture():
    """Trained for seconds, U_0 - U_1 + log p_1 matches a closed form without fitting a constant."""
    torch.manual_seed(0)
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=2)
    model = LateFusionEnergy(2, width=64, depth=1, num_fourier=16, fourier_scale=2.0)

    def sample(num_samples, random):
        centres = MEANS[torch.randint(3, (num_samples,), generator=random)]
        return centres + SPREAD * path.sample_noise(num_samples, random)

    train_energy(model, path, sample, 600)
    line = torch.linspace(-3, 3, 121)
    grid = torch.cartesian_prod(line, line)
    truth = mixture_log_density(grid).double()
    log_z, divergence = log_z_and_divergence(model, path, grid, truth, 0.05**2)
    assert abs(log_z) < 0.1
    assert -0.1 < divergence < 0.05


def test_the_read_out_is_normalised_on_the_circle():
    """A wrapped normal astride the cut at pi, where only periodic features get it right."""
    torch.manual_seed(0)
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=0, num_circular=1)
    model = LateFusionEnergy(0, 1, width=32, depth=1, num_features=32, time_width=32)

    def sample(num_samples, random):
        return path.wrap(3.0 + 0.4 * path.sample_noise(num_samples, random))

    train_energy(model, path, sample, 400)
    angles = (2 * math.pi / 200 * torch.arange(200)).sub(math.pi)[:, None]
    images = torch.distributions.Normal(3.0 + 2 * math.pi * torch.arange(-2.0, 3), 0.4)
    truth = images.log_prob(angles).logsumexp(1).double()
    log_z, divergence = log_z_and_divergence(model, path, angles, truth, 2 * math.pi / 200)
    assert abs(log_z) < 0.1
    assert -0.1 < divergence < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"num_negatives": 0},
        {"time_exponent": 0.0},
        {"negatives": "hard"},
        {"score_weight": -1.0},
        {"infonce_weight": math.nan},
        {"score_weight": 0.0, "infonce_weight": 0.0},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(InputError, match=next(iter(options))):
        EnergyMatching(LateFusionEnergy(3, 2, **SMALL), PATH, **HYBRID | options)
