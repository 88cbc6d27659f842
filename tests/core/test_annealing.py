"""Annealing against closed forms: mixtures of Gaussians times von Mises on R x circle."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.special import i0, logsumexp
from torch import Tensor

from bnce_dist.core.annealing import (
    MAX_LEVELS,
    AnnealingSchedule,
    anneal,
    log_mean_weight,
    tune_schedule,
)
from bnce_dist.core.bridge import Bridge
from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator

SPACE = ProductPath(TrigonometricInterpolant(), num_euclidean=1, num_circular=1)
COMPONENTS = torch.tensor(
    # weight, mean, standard deviation, direction [rad], concentration
    [[2.0, -0.8, 0.5, 3.0, 4.0], [1.0, 1.2, 0.4, -2.2, 6.0]],
    dtype=torch.float64,
)
"""Both lie beside the seam of the circle."""


def with_gradient(log_density):
    def both(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        values = log_density(z)
        return values.detach(), torch.autograd.grad(values.sum(), z)[0]

    return both


def log_mixture(z: Tensor) -> Tensor:
    weight, mean, sd, direction, concentration = COMPONENTS.to(z).T
    x, angle = z[:, :1], z[:, 1:]
    exponents = -0.5 * ((x - mean) / sd) ** 2 + concentration * torch.cos(angle - direction)
    return (weight.log() + exponents).logsumexp(1)


def integrals() -> np.ndarray:
    weight, _, sd, _, concentration = COMPONENTS.numpy().T
    return weight * math.sqrt(2 * math.pi) * sd * 2 * math.pi * i0(concentration)


def sample_mixture(num_samples: int, random: torch.Generator) -> Tensor:
    shares = torch.from_numpy(integrals())
    rows = COMPONENTS[torch.multinomial(shares, num_samples, replacement=True, generator=random)]
    x = rows[:, 1] + rows[:, 2] * torch.randn(num_samples, generator=random, dtype=torch.float64)
    numpy = np.random.default_rng(torch.randint(2**31, (1,), generator=random).item())
    angle = torch.from_numpy(numpy.vonmises(rows[:, 3].numpy(), rows[:, 4].numpy()))
    return SPACE.wrap(torch.stack([x, angle], dim=1))


def prior(num_samples: int, *key: int | str) -> Tensor:
    return SPACE.sample_prior(num_samples, generator(*key), torch.float64)


BRIDGE = Bridge(with_gradient(SPACE.log_prior), with_gradient(log_mixture), SPACE)
SCHEDULE = AnnealingSchedule((0.2, 0.5, 1.0), (0.5, 0.5, 0.4), 3, widths=((1.0, 0.3),) * 3)


@pytest.mark.parametrize("resample_below", [0.0, 1.0])
def test_the_mean_weight_is_the_normalising_constant_and_its_log_is_not(resample_below):
    """Small populations: the log of a mean of 8 weights is low by half its variance."""
    means = torch.stack([
        anneal(
            BRIDGE, prior(8, "z", index), SCHEDULE, generator("move", index),
            resample_below=resample_below,
        ).log_weights.exp().mean()
        for index in range(400)
    ])  # fmt: skip
    expected = integrals().sum()
    error = means.std() / math.sqrt(len(means))
    assert error < 0.05 * expected
    assert abs(means.mean() - expected) < 4 * error
    assert math.log(expected) - means.log().mean() > 4 * error / expected


def test_weighted_samples_have_the_mixture_s_expectations():
    annealed = anneal(BRIDGE, prior(20_000, "many"), SCHEDULE, generator("moves"))
    weights = annealed.log_weights.softmax(0)
    exact = sample_mixture(200_000, generator("exact"))
    shares = integrals() / integrals().sum()
    angle = annealed.z[:, 1]
    assert ((angle > -math.pi) & (angle <= math.pi)).all()
    # About 10,000 effective samples.
    assert weights @ annealed.z[:, 0] == pytest.approx(shares @ COMPONENTS[:, 1].numpy(), abs=0.04)
    for function in (torch.cos, torch.sin):
        difference = weights @ function(angle) - function(exact[:, 1]).mean()
        assert abs(difference) < 0.03
    log_integral, error = log_mean_weight(annealed.log_weights)
    assert abs(log_integral - math.log(integrals().sum())) < 4 * error < 0.06


def test_densities_reported_are_those_of_the_final_points():
    annealed = anneal(BRIDGE, prior(50, "few"), SCHEDULE, generator("moves"))
    torch.testing.assert_close(annealed.log_end, log_mixture(annealed.z))
    torch.testing.assert_close(annealed.log_start, SPACE.log_prior(annealed.z))
    assert annealed.num_gradients == 50 * (1 + 3 * 3)
    assert annealed.ancestors.tolist() == list(range(50))
    assert annealed.log_weights.dtype == torch.float64
    assert annealed.acceptance.shape == (3,)
    assert not annealed.clashed.any()


def test_one_level_is_importance_sampling():
    z = prior(200, "one level")
    annealed = anneal(BRIDGE, z, AnnealingSchedule((1.0,), (0.3,)), generator("moves"))
    torch.testing.assert_close(annealed.log_weights, log_mixture(z) - SPACE.log_prior(z))


def test_a_move_leaves_its_level_invariant_and_is_reversible():
    """In equilibrium, going from a to b is as likely as going from b to a."""
    before = sample_mixture(100_000, generator("equilibrium"))
    point = BRIDGE.evaluate(before)
    step_size = torch.tensor([0.5, 0.15], dtype=torch.float64)
    move = BRIDGE.move(point, 1.0, step_size, 3, generator("move"))
    after = move.point.z
    assert 0.5 < move.accepted.double().mean() < 0.95  # Steps so long that rejection matters.
    assert move.probability.mean() == pytest.approx(float(move.accepted.double().mean()), abs=0.01)

    def features(z: Tensor) -> Tensor:
        x, angle = z.T
        return torch.stack([x, x**2, angle.cos(), angle.sin(), (2 * angle).sin(), x * angle.sin()])

    def assert_zero(values: Tensor) -> None:
        assert (values.mean(-1).abs() < 4.5 * values.std(-1) / math.sqrt(values.shape[-1])).all()

    assert_zero(features(after) - features(before))
    flux = features(before)[:, None] * features(after)
    assert_zero((flux - flux.transpose(0, 1))[*torch.triu_indices(6, 6, offset=1)])


def test_the_same_seed_gives_the_same_samples():
    def run(key: str) -> tuple[Tensor, Tensor]:
        annealed = anneal(
            BRIDGE, prior(30, "same"), SCHEDULE, generator(0, key), resample_below=0.9
        )
        return annealed.z, annealed.log_weights

    assert all(one.equal(other) for one, other in zip(run("a"), run("a"), strict=True))
    assert not run("a")[0].equal(run("b")[0])


def test_ancestors_say_whom_resampled_chains_descend_from():
    z = prior(500, "ancestors")
    still = AnnealingSchedule((0.5, 1.0), (1e-9, 1e-9), num_leapfrog=1)
    annealed = anneal(BRIDGE, z, still, generator("moves"), resample_below=1.0)
    torch.testing.assert_close(annealed.z, SPACE.wrap(z)[annealed.ancestors])
    assert len(annealed.ancestors.unique()) < 400
    assert (annealed.log_weights == annealed.log_weights[0]).all()


def test_the_pilot_finds_step_sizes_and_levels():
    random = generator("pilot")
    schedule = tune_schedule(BRIDGE, prior(500, "pilot"), random, min_ess_fraction=0.9)
    annealed = anneal(BRIDGE, prior(5000, "main"), schedule, generator("main"))
    # The pilot's chains have settled at the first level, these come from the prior.
    assert annealed.acceptance[0] > 0.6
    assert (annealed.acceptance[1:] - 0.8).abs().max() < 0.1
    assert 2 <= schedule.num_levels <= 20
    finer = tune_schedule(BRIDGE, prior(500, "pilot"), random, min_ess_fraction=0.99)
    assert finer.num_levels > 2 * schedule.num_levels
    given = tune_schedule(BRIDGE, prior(500, "pilot"), random, num_levels=7, num_leapfrog=2)
    assert given.fractions == pytest.approx([((k + 1) / 7) ** 1.5 for k in range(7)])
    assert given.num_leapfrog == 2
    assert AnnealingSchedule(**json.loads(json.dumps(dataclasses.asdict(given)))) == given


def test_the_pilot_finds_how_wide_coordinates_are_beside_some_in_a_clash():
    """Given the other coordinate, each of these is sqrt(1 - 0.6^2) = 0.8 times as wide."""
    covariance = torch.tensor([[0.04, 0.06], [0.06, 0.25]], dtype=torch.float64)
    precision = covariance.inverse()
    wall = 1.2

    def log_normal(z: Tensor) -> Tensor:
        clash = -1e6 * (z[:, 1] - wall).clamp_min(0)  # Of one sample in a hundred.
        return -0.5 * (z @ precision * z).sum(1) + clash

    line = ProductPath(TrigonometricInterpolant(), num_euclidean=2)
    bridge = Bridge(with_gradient(log_normal), with_gradient(log_normal), line)
    noise = torch.randn(4000, 2, generator=generator("wide"), dtype=torch.float64)
    z = noise @ torch.linalg.cholesky(covariance).T
    assert (z[:, 1] > wall).any()
    schedule = tune_schedule(bridge, z, generator("tune"), num_levels=2)
    for widths in schedule.widths:
        assert widths == pytest.approx((0.8 * 0.2, 0.8 * 0.5), rel=0.15)


def test_chosen_levels_keep_the_conditional_sample_size():
    """A Gaussian narrowed to a tenth of its variance: each level is Gaussian again."""
    precision = 10.0
    end = with_gradient(lambda z: -0.5 * precision * z[:, 0] ** 2)
    start = with_gradient(lambda z: -0.5 * z[:, 0] ** 2)
    line = ProductPath(TrigonometricInterpolant(), num_euclidean=1)
    z = line.sample_prior(4000, generator("line"), torch.float64)
    schedule = tune_schedule(Bridge(start, end, line), z, generator(0), min_ess_fraction=0.9)
    previous = 1.0
    for fraction in schedule.fractions[:-1]:
        current = 1 + fraction * (precision - 1)
        # E[w]^2 / E[w^2] of w = exp(-(current - previous) x^2 / 2), x ~ N(0, 1 / previous).
        ess = math.sqrt(previous * (2 * current - previous)) / current
        assert ess == pytest.approx(0.9, abs=0.02)
        previous = current


def hard_wall(z: Tensor) -> Tensor:
    """A normal density that ends at 0.5, with what a clash may give beyond it."""
    x = z[:, 0]
    beyond = torch.where(x > 1.0, torch.nan, -torch.inf)
    return torch.where(x > 0.5, beyond, -0.5 * x**2 - 0.5 * z[:, 1] ** 2)


def test_clashes_are_rejected_or_weigh_nothing():
    def wall(z: Tensor) -> tuple[Tensor, Tensor]:
        return hard_wall(z), torch.where(z > 0.4, torch.nan, -z)

    bridge = Bridge(with_gradient(SPACE.log_prior), wall, SPACE)
    z = prior(20_000, "clash")
    annealed = anneal(bridge, z, SCHEDULE, generator("moves"))
    impossible = z[:, 0] > 0.5
    assert annealed.log_weights[impossible].isneginf().all()
    assert annealed.log_weights[~impossible].isfinite().all()
    assert annealed.z.isfinite().all()
    assert annealed.clashed.any()
    assert not (annealed.clashed & annealed.accepted).any()
    weights = annealed.log_weights.softmax(0)
    assert annealed.z[weights > 0, 0].max() <= 0.5
    # Normal below 0.5: P = 0.69146; on the circle the density is that of an angle in (-pi, pi].
    expected = (
        math.sqrt(2 * math.pi) * 0.691462 * math.sqrt(2 * math.pi) * math.erf(math.pi / 2**0.5)
    )
    log_integral, error = log_mean_weight(annealed.log_weights)
    assert abs(log_integral - math.log(expected)) < 4 * error < 0.1
    resampled = anneal(bridge, z, SCHEDULE, generator("moves"), resample_below=0.9)
    assert resampled.z[:, 0].max() <= 0.5


def test_clashes_walk_out_before_they_weigh_nothing():
    """A fifth of the samples lie in a repulsion of up to 1e6 kT, as atoms that overlap do."""

    def repelled(z: Tensor) -> Tensor:
        beyond = (z[:, 0] - 0.85).clamp(min=0)
        return -0.5 * z.square().sum(1) - 1e5 * beyond.square()

    bridge = Bridge(with_gradient(SPACE.log_prior), with_gradient(repelled), SPACE)
    schedule = tune_schedule(bridge, prior(300, "pilot"), generator("pilot"), num_leapfrog=3)
    z = prior(4_000, "overlap")
    annealed = anneal(bridge, z, schedule, generator("moves"))
    clashed = z[:, 0] > 0.85
    weights = annealed.log_weights.softmax(0)
    # If the first step were a hundredth of the way, they would keep half a percent of the weight.
    assert clashed.double().mean() == pytest.approx(0.198, abs=0.02)
    assert weights[clashed].sum() > 0.05
    # A normal variable below 0.85, P = 0.80234, and what the repulsion lets through.
    let_through = math.exp(-0.5 * 0.85**2) * math.sqrt(math.pi / 1e5) / 2
    expected = math.sqrt(2 * math.pi) * (math.sqrt(2 * math.pi) * 0.802337 + let_through)
    expected *= math.erf(math.pi / 2**0.5)
    log_integral, error = log_mean_weight(annealed.log_weights)
    assert abs(log_integral - math.log(expected)) < 4 * error < 0.08
    assert schedule.num_levels < MAX_LEVELS / 2


def test_pilots_learn_from_those_that_can_move():
    """Three tenths of the samples lie far out, where nothing is possible, and stay there."""

    def walled(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] > 10, -torch.inf, -0.5 * z.square().sum(1))

    line = ProductPath(TrigonometricInterpolant(), num_euclidean=4)
    start = with_gradient(lambda z: -0.5 * z.square().sum(1))
    bridge = Bridge(start, with_gradient(walled), line)
    z = torch.randn(1000, 4, generator=generator("pilot"), dtype=torch.float64)
    possible = z[300:].clone()
    z[:300, 0] += 1000
    schedule = tune_schedule(bridge, z, generator("tune"), num_levels=4)
    annealed = anneal(bridge, possible, schedule, generator("moves"))
    # Their standing still would ask for ever shorter steps, all of which are accepted.
    assert annealed.acceptance.mean().item() == pytest.approx(0.8, abs=0.1)


def test_a_population_without_any_weight_keeps_its_shape():
    nowhere = with_gradient(lambda z: z.sum(1) * 0 - torch.inf)
    annealed = anneal(
        Bridge(with_gradient(SPACE.log_prior), nowhere, SPACE), prior(5, "dead"), SCHEDULE,
        generator("moves"), resample_below=0.9,
    )  # fmt: skip
    assert annealed.log_weights.isneginf().all()
    assert annealed.ancestors.tolist() == [0, 1, 2, 3, 4]


def test_samples_all_of_which_are_impossible_arrive_without_weight():
    nowhere = with_gradient(lambda z: z.sum(1) * 0 - torch.inf)
    bridge, z = Bridge(with_gradient(SPACE.log_prior), nowhere, SPACE), prior(50, "dead")
    schedule = tune_schedule(bridge, z, generator("pilot"))
    assert schedule.num_levels == 1
    annealed = anneal(bridge, z, schedule, generator("moves"))
    assert annealed.log_weights.isneginf().all()
    assert annealed.z.equal(z)


def test_errors_over_populations_are_those_of_repeated_runs():
    rng = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(300):
        shared = rng.normal(scale=0.5, size=(40, 1))
        log_weights = shared + rng.normal(scale=0.5, size=(40, 10))
        value, error = log_mean_weight(log_weights.flatten(), np.repeat(np.arange(40), 10))
        estimates.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.15)
    unequal = log_mean_weight([0.0, 1.0, 2.0], [7, 3, 3])[0]
    assert unequal == pytest.approx(logsumexp([0, 1, 2]) - np.log(3))


def test_the_loop_over_levels_never_waits_for_a_device():
    from bnce_dist.core.annealing import _through_levels

    def flat(z: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * z.square().sum(1), -z

    bridge = Bridge(flat, flat, SPACE)
    point = bridge.evaluate(torch.empty(16, 2, device="meta"))
    annealed = _through_levels(bridge, point, SCHEDULE, None, resample_below=0.5)
    assert annealed.z.shape == (16, 2)
    assert annealed.z.is_meta
    assert annealed.log_weights.dtype == torch.float64


def test_bad_input_is_one_clear_line():
    z, random = prior(30, "bad"), generator("bad")
    for arguments, message in [
        (((), ()), "num_levels of annealing: expected at least 1, got 0"),
        (((1.0,), (0.3,), 0), "num_leapfrog of annealing: expected at least 1, got 0"),
        (((0.5, 0.5, 1.0), (0.3,) * 3), "increase from above 0 to exactly 1"),
        (((0.5, 0.9), (0.3, 0.3)), "increase from above 0 to exactly 1"),
        (((0.5, 1.0), (0.3,)), "2 positive numbers"),
        (((0.5, 1.0), (0.3, math.nan)), "2 positive numbers"),
        (((0.5, 1.0), (0.3, 0.3), 3, ((1.0, 0.0),) * 2), "widths of an annealing schedule"),
        (((0.5, 1.0), (0.3, 0.3), 3, ((1.0, 1.0), (1.0,))), "as many at each of 2 levels"),
    ]:
        with pytest.raises(InputError, match=message):
            AnnealingSchedule(*arguments)
    for settings, message in [
        ({"num_levels": 0}, "num_levels of annealing"),
        ({"num_leapfrog": 0}, "num_leapfrog of annealing"),
        ({"min_ess_fraction": 1.0}, "min_ess_fraction"),
        ({"max_levels": 20}, "max_levels: expected at least 100, got 20; give num_levels"),
    ]:
        with pytest.raises(InputError, match=message):
            tune_schedule(BRIDGE, z, random, **settings)
    for wrong in (z[:, :1], z[:0], z[0]):
        with pytest.raises(InputError, match=r"shape \(samples, 2\)"):
            anneal(BRIDGE, wrong, SCHEDULE, random)
    with pytest.raises(InputError, match="take a target with gradients"):
        anneal(Bridge(BRIDGE.start, log_mixture, SPACE), z, SCHEDULE, random)  # type: ignore
    three = AnnealingSchedule((1.0,), (0.3,), widths=((1.0,) * 3,))
    with pytest.raises(InputError, match="expected widths of 2 coordinates, got of 3"):
        anneal(BRIDGE, z, three, random)
    with pytest.raises(InputError, match="at level 1 of 1: expected some that are accepted"):
        anneal(BRIDGE, z, AnnealingSchedule((1.0,), (1e3,)), random)
    with pytest.raises(InputError, match="at least two"):
        log_mean_weight([0.0, 1.0], [4, 4])


def test_a_target_out_of_reach_costs_a_bounded_number_of_levels():
    spike = with_gradient(lambda z: -0.5e9 * (z[:, 0] - 3).square())
    bridge = Bridge(BRIDGE.start, spike, SPACE)
    schedule = tune_schedule(bridge, prior(50, "far"), generator(0), num_leapfrog=1)
    assert schedule.num_levels <= MAX_LEVELS


@pytest.mark.parametrize("max_levels", [MAX_LEVELS, 400])
def test_there_are_never_more_than_the_most_levels_where_no_step_is_short_enough(max_levels: int):
    from bnce_dist.core.annealing import _next_fraction

    equal, far = torch.zeros(50), 1e9 * torch.arange(50.0)
    fractions = [0.0]
    while fractions[-1] < 1:
        fractions.append(_next_fraction(fractions[-1], equal, far, 0.995, max_levels))
    assert 0.9 * max_levels < len(fractions) - 1 <= max_levels
