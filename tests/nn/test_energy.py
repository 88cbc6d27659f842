"""The contract of every energy model, then what only one of them promises."""

import math

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.core.mean_free import from_mean_free, to_mean_free, zero_sum_basis
from bnce_dist.core.path import ProductPath
from bnce_dist.nn.concatenated_energy import ConcatenatedEnergy
from bnce_dist.nn.distance_energy import DistanceEnergy
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.graphormer import GraphormerEnergy
from bnce_dist.nn.tokens import TokenEnergy

ATOMS = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
# Four coordinates and two angles, or three atoms: points of six numbers either way.
INTERNAL = {"num_euclidean": 4, "num_circular": 2, "width": 16, "depth": 1, "num_fourier": 4}
CARTESIAN = {"node_features": ATOMS, "width": 16, "depth": 2, "num_radial": 8}
# Three atoms with a bond, an angle, and torsions: two stiff ones are missing, two free ones there.
TOKENS = {
    "features": ATOMS,
    "relations": [[0, 1, 2], [9, 0, 1], [10, 9, 0]],
    "slots": [[0, -1, -1, -1], [1, 2, -1, 4], [-1, -1, 3, 5]],
}
LATE = {"num_features": 8, "time_width": 8, "interpolant": "linear"}
ARCHITECTURES = {
    LateFusionEnergy: {**INTERNAL, **LATE},
    ConcatenatedEnergy: INTERNAL,
    DistanceEnergy: {**CARTESIAN, **LATE},
    GraphormerEnergy: {**CARTESIAN, "num_heads": 4, "interpolant": "linear"},
    TokenEnergy: {"tokens": TOKENS, "num_euclidean": 4, "width": 16, "depth": 2, **LATE},
}


@pytest.fixture
def late_fusion():
    torch.manual_seed(0)
    return LateFusionEnergy(4, 2, width=16, depth=1, num_features=8, time_width=8).double()


@pytest.fixture(params=ARCHITECTURES, ids=lambda model_class: model_class.architecture)
def model(request):
    torch.manual_seed(0)
    return request.param(**ARCHITECTURES[request.param]).double()


@pytest.fixture
def points():
    random = torch.Generator().manual_seed(1)
    z = torch.randn(6, 6, generator=random, dtype=torch.float64)
    return z, torch.rand(6, generator=random, dtype=torch.float64)


def test_the_three_ways_to_evaluate_agree(model, points):
    z, t = points
    times = torch.cat([t, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    own, common = model.forward_with_times(z, t, times)
    torch.testing.assert_close(own, model(z, t))
    torch.testing.assert_close(common, model.at_times(z, times))
    torch.testing.assert_close(common[:, :6].diagonal(), own)


def test_points_can_have_their_own_times(model, points):
    z, t = points
    times = torch.stack([t, t.square(), 1 - t], 1)
    expected = torch.stack([model(z, column) for column in times.T], 1)
    torch.testing.assert_close(model.at_times(z, times), expected)
    own, others = model.forward_with_times(z, t, times)
    torch.testing.assert_close(own, model(z, t))
    torch.testing.assert_close(others, expected)


def test_energies_can_be_differentiated_twice(model, points):
    z, t = points
    z.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: model.forward_with_times(x, t, t)[0], z)


def test_the_read_out_is_the_difference_of_the_ends_over_the_prior(model, points):
    z, _ = points
    num_circular = 2 if isinstance(model, TokenEnergy) else model.config().get("num_circular", 0)
    path = ProductPath(interpolant_from_name("linear"), 6 - num_circular, num_circular)
    data, noise = model(z, torch.zeros(6).double()), model(z, torch.ones(6).double())
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, : 6 - num_circular]).sum(1)
    expected = data - noise + normal - num_circular * math.log(2 * math.pi)
    torch.testing.assert_close(model.log_density_z(z, path), expected)


@pytest.mark.parametrize(
    "model", [LateFusionEnergy, ConcatenatedEnergy, TokenEnergy], indirect=True
)
def test_energy_is_periodic_in_the_angles(model, points):
    z, t = points
    turned = z.clone()
    turned[:, 4:] += 2 * math.pi
    torch.testing.assert_close(model(turned, t), model(z, t))


@pytest.mark.parametrize("model", [DistanceEnergy, GraphormerEnergy], indirect=True)
def test_energy_is_that_of_the_shape_alone(model, points):
    """Rotated molecules, and molecules with two equivalent atoms exchanged, are the same."""
    z, t = points
    positions = from_mean_free(z, zero_sum_basis(3))
    rotation = torch.linalg.qr(positions[0])[0]
    changed = to_mean_free(positions[:, [0, 2, 1]] @ rotation, zero_sum_basis(3))
    torch.testing.assert_close(model(changed, t), model(z, t))
    other = to_mean_free(positions[:, [1, 0, 2]], zero_sum_basis(3))
    assert not torch.allclose(model(other, t), model(z, t))


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_without_a_network_standard_normal_data_are_exact(name, points):
    """With f = g = 0 the energy is the marginal of standard normal data, up to normalisation."""
    z, t = points
    z = z[:, :3]
    schedule = interpolant_from_name(name)
    model = LateFusionEnergy(3, interpolant=name, width=8, depth=1, num_features=4).double()
    torch.nn.init.zeros_(model.time_network.output[-1].weight)
    variance = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(model(z, t), -z.square().sum(1) / (2 * variance))
    log_density = model.log_density_z(z, ProductPath(schedule, 3))
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(log_density, normal.log_prob(z).sum(1))


def test_log_density_ignores_a_function_of_position_alone(late_fusion, points):
    """A constant in g adds c(z) to U, which InfoNCE cannot see; the read-out removes it."""
    z, model = points[0], late_fusion
    path = ProductPath(interpolant_from_name("trigonometric"), 4, 2)
    before = model.log_density_z(z, path)
    handle = model.time_network.register_forward_hook(lambda *call: call[2] + 1.7)
    torch.testing.assert_close(model.log_density_z(z, path), before)
    handle.remove()


def test_energies_keep_full_precision_under_autocast(late_fusion, points):
    model, z, t = late_fusion.float(), 20 * points[0].float(), points[1].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own, common = model.forward_with_times(z, t, t)
    assert own.dtype == common.dtype == torch.float32
    # bf16 alone would be off by about 1 at energies of several hundred.
    torch.testing.assert_close(own, model(z, t), rtol=0, atol=0.05)
    torch.testing.assert_close(common.diagonal(), own, rtol=0, atol=1e-3)


def test_config_rebuilds_the_model(model, points):
    twin = type(model)(**model.config()).double()
    twin.load_state_dict(model.state_dict())
    z, t = points
    torch.testing.assert_close(twin(z, t), model(z, t), rtol=0, atol=0)


def test_unknown_interpolant_is_refused():
    with pytest.raises(InputError, match="cosine"):
        LateFusionEnergy(2, interpolant="cosine")


def test_the_published_network_written_out_gives_the_same_energy(points):
    """Residual layers with one learnable swish each, time as the last input."""
    torch.manual_seed(0)
    model, (z, t) = ConcatenatedEnergy(6, width=16, depth=2).double(), points
    weights = dict(model.named_parameters())
    hidden = torch.cat([z, t[:, None]], 1)
    for index, name in enumerate(["input", "layers.0", "layers.1"]):
        weights[f"{name}.1.beta"].data.fill_(0.5 + index)
        linear = hidden @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]
        swish = linear / (1 + torch.exp(-(0.5 + index) * linear))
        hidden = swish if index == 0 else hidden + swish
    torch.testing.assert_close(model(z, t), hidden @ weights["output.weight"][0])
