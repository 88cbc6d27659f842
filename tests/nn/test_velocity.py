import math

import pytest
import torch

from bnce_dist.nn.velocity import InternalVelocity


@pytest.mark.parametrize(("num_euclidean", "num_circular"), [(2, 0), (0, 2), (3, 2)])
def test_velocity_is_periodic_and_rests_on_angles_at_the_data(num_euclidean, num_circular):
    torch.manual_seed(0)
    velocity = InternalVelocity(num_euclidean, num_circular, width=16, depth=1).double()
    z = torch.randn(5, num_euclidean + num_circular, dtype=torch.float64)
    t = torch.tensor([0.0, 1e-3, 0.3, 0.6, 1.0], dtype=torch.float64)
    turned = z.clone()
    turned[:, num_euclidean:] -= 2 * math.pi
    torch.testing.assert_close(velocity(turned, t), velocity(z, t))
    assert (velocity(z, t)[0, num_euclidean:] == 0).all()


def test_config_rebuilds_the_model():
    model = InternalVelocity(3, 2, width=16, depth=1, num_fourier=4, circular_scale=3.0)
    twin = InternalVelocity(**model.config())
    twin.load_state_dict(model.state_dict())
    z, t = torch.randn(5, 5), torch.rand(5)
    torch.testing.assert_close(twin(z, t), model(z, t), rtol=0, atol=0)
