import inspect
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import LinearInterpolant
from bnce_dist.nn.conformation import RadialBasis, dense_edges
from bnce_dist.nn.gvp import GVP, GVPVectorField, Message
from bnce_dist.nn.neighbours import neighbour_list


def test_factored_messages_are_those_of_the_perceptron_on_every_edge():
    torch.manual_seed(0)
    message = Message(num_scalars=5, num_vectors=4, num_radial=3).double()
    batch, atoms = 2, 6
    scalars = torch.randn(batch, atoms, 5, dtype=torch.float64)
    vectors = torch.randn(batch, atoms, 3, 4, dtype=torch.float64)
    positions = torch.randn(batch, atoms, 3, dtype=torch.float64)
    mask = torch.ones(batch, atoms, dtype=torch.float64)
    mask[1, 4:] = 0
    edges = dense_edges(positions, mask)
    radial = RadialBasis(3, 4.0).double()(edges.distance)
    received = message.aggregate(scalars, vectors, radial, edges)
    expected = torch.zeros_like(scalars), torch.zeros_like(vectors)
    for b, i, j in ((b, i, j) for b in range(batch) for i in range(atoms) for j in range(atoms)):
        if i != j and mask[b, i] and mask[b, j]:
            difference = positions[b, j] - positions[b, i]
            direction = (difference / difference.norm())[:, None]
            sent = GVP.forward(
                message,
                torch.cat([scalars[b, j], radial[b, i, j]]),
                torch.cat([direction, vectors[b, j]], dim=1),
            )
            expected[0][b, i] += sent[0]
            expected[1][b, i] += sent[1]
    torch.testing.assert_close(received, expected)


@pytest.mark.parametrize("parametrisation", ["velocity", "endpoint"])
def test_velocity_of_either_parametrisation(parametrisation):
    """On straight lines the velocity is (x_t - E[x_data|x_t]) / t."""
    torch.manual_seed(0)
    field = GVPVectorField(2, parametrisation=parametrisation, num_layers=1, num_scalars=8)
    positions, features = torch.randn(3, 5, 3), torch.randn(5, 2)
    t = torch.tensor([0.2, 0.5, 1.0])
    output = field(positions, t, features)
    expected = output if parametrisation == "velocity" else (positions - output) / t[:, None, None]
    torch.testing.assert_close(field.velocity(positions, t, features), expected)
    assert isinstance(field.interpolant, LinearInterpolant)


def test_the_configuration_rebuilds_the_field():
    """Every argument is given another value than its default."""
    arguments = {
        "parametrisation": "endpoint", "interpolant": "trigonometric", "num_layers": 1,
        "num_scalars": 8, "num_vectors": 4, "num_radial": 5, "max_distance": 7.0,
        "message_scale": 3.0, "step_size": 2.0, "radius": 1.5,
    }  # fmt: skip
    parameters = inspect.signature(GVPVectorField).parameters
    assert parameters.keys() == {"num_node_features", *arguments}
    assert GVPVectorField(2, **arguments).config() == arguments


def test_every_trainable_weight_gets_a_gradient():
    """Data-parallel ranks wait for all of them."""
    torch.manual_seed(0)
    field = GVPVectorField(2, num_layers=2, num_scalars=8, num_vectors=4)
    field(torch.randn(3, 5, 3), torch.rand(3), torch.randn(5, 2)).square().sum().backward()
    waited_for = [name for name, weight in field.named_parameters() if weight.requires_grad]
    assert [name for name in waited_for if field.get_parameter(name).grad is None] == []
    assert any(name.startswith("layers.0.step") for name in waited_for)


def test_unknown_parametrisation_is_refused():
    with pytest.raises(InputError, match="velocity or endpoint, got 'score'"):
        GVPVectorField(2, parametrisation="score")


def test_a_radius_is_the_dense_form_without_the_longer_edges(monkeypatch):
    torch.manual_seed(3)
    field = GVPVectorField(3, num_layers=3, num_scalars=8, num_vectors=4, radius=4.0).double()
    positions = 2 * torch.randn(3, 9, 3, dtype=torch.float64)
    mask = torch.ones(3, 9)
    mask[1, 5:] = 0
    arguments = positions, torch.rand(3), torch.randn(3, 9, 3, dtype=torch.float64), mask
    within = field(*arguments)

    def shorter_edges(positions, mask):
        edges = dense_edges(positions, mask)
        return edges._replace(weight=edges.weight * (edges.distance < 4.0))

    share = shorter_edges(positions, mask).weight.sum() / dense_edges(positions, mask).weight.sum()
    assert 0.2 < share < 0.8
    monkeypatch.setattr("bnce_dist.nn.gvp.dense_edges", shorter_edges)
    for layer in field.layers:
        layer.radius = None
    torch.testing.assert_close(within, field(*arguments), rtol=0, atol=1e-10)


def radius_graph(x, r, batch, loop=False, max_num_neighbors=32):
    """What torch-cluster documents: at most so many senders, and the receiver of each."""
    near = (torch.cdist(x, x) < r) & (batch[:, None] == batch)
    if not loop:
        near.fill_diagonal_(False)
    receiver, sender = (near & (near.cumsum(1) <= max_num_neighbors)).nonzero().T
    return torch.stack([sender, receiver])


@pytest.mark.parametrize("library", ["installed", "documented"])
def test_torch_cluster_finds_the_same_neighbours(library, monkeypatch):
    if library == "documented":
        module = ModuleType("torch_cluster")
        module.__spec__ = ModuleSpec("torch_cluster", loader=None)
        module.radius_graph = radius_graph
        monkeypatch.setitem(sys.modules, "torch_cluster", module)
    pytest.importorskip("torch_cluster", reason="torch-cluster is not installed")
    positions = 2 * torch.randn(2, 80, 3)
    mask = torch.ones(2, 80)
    mask[1, 60:] = 0
    found = neighbour_list(positions, mask, 6.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    expected = neighbour_list(positions, mask, 6.0)
    pairs = [set(zip(*map(torch.Tensor.tolist, edges), strict=True)) for edges in (found, expected)]
    assert pairs[0] == pairs[1]
    # More than the 32 that torch-cluster would keep by itself.
    assert expected[0].bincount().max() > 32
