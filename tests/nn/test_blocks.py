import math

import torch

from bnce_dist.nn.blocks import LearnableSwish, PositionFeatures, ResidualMLP, TimeEmbedding


def test_time_embedding_resolves_times_near_the_data():
    embedding = TimeEmbedding(16, time_exponent=2.5).double()
    t = torch.tensor([0.0, 1e-4, 1e-3, 1.0], dtype=torch.float64)
    features = embedding(t)
    assert features.shape == (4, embedding.num_features)
    assert torch.isfinite(features).all()
    expected = torch.cos(3 * math.pi * t[2] ** 0.4)
    torch.testing.assert_close(features[2, 3], expected, rtol=1e-6, atol=0)
    # A step of 1e-3 at the data moves the embedding more than a step of 1e-2 at the noise.
    late = embedding(torch.tensor([0.99, 1.0], dtype=torch.float64))
    assert (features[2] - features[0]).norm() > 3 * (late[1] - late[0]).norm()


def test_position_features_are_periodic_in_angles_only():
    torch.manual_seed(0)
    features = PositionFeatures(3, 2, num_harmonics=4, num_fourier=5, fourier_scale=2.0).double()
    z = torch.randn(7, 5, dtype=torch.float64)
    assert features(z).shape == (7, features.num_features)
    turned = z.clone()
    turned[:, 3:] += 2 * math.pi * torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(features(turned), features(z))
    moved = z.clone()
    moved[:, 0] += 2 * math.pi
    assert not torch.allclose(features(moved), features(z))


def test_residual_mlp_is_twice_differentiable():
    torch.manual_seed(0)
    network = ResidualMLP(4, 16, 2, 1).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(network, x)


def test_an_activation_reads_files_that_hold_its_slope_without_dimensions() -> None:
    activation = LearnableSwish()
    activation.load_state_dict({"beta": torch.tensor(2.0)})
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(activation(x), x / (1 + torch.exp(-2 * x)))
