"""The inverse of a sampler's map, against the sampler itself."""

import torch

from bnce_dist.core.divergence import reverse_jacobian, sample_with_log_density
from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.inversion import invert_with_log_density
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.nn.velocity import InternalVelocity

PATH = ProductPath(TrigonometricInterpolant(), num_euclidean=2, num_circular=2)


def test_noise_and_density_of_samples_are_found_again():
    torch.manual_seed(0)
    network = InternalVelocity(2, 2, width=32, depth=2).double()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    z_prior = PATH.sample_prior(200, generator("prior"), torch.float64)
    for num_steps, exponent in ((3, 1.0), (8, 1.5)):
        z, log_density, inverted = sample_with_log_density(
            network, PATH, z_prior, num_steps, time_exponent=exponent
        )
        found_z, found_density, found = invert_with_log_density(
            network,
            PATH,
            z,
            num_steps,
            time_exponent=exponent,
            differentiate=reverse_jacobian,
        )
        # A field as wild as this one has a few points that are hard to find or have two origins.
        assert (found & ~inverted).double().mean() > 0.9
        same = found & (PATH.wrap(found_z - z_prior).abs().amax(1) < 1e-2)
        assert same.sum() >= 0.98 * (found & ~inverted).sum()
        torch.testing.assert_close(found_density[same], log_density[same], atol=2e-2, rtol=0)


def test_a_point_that_nothing_leads_to_is_not_found():
    """One step along ``v = -cos(x)`` from ``t = 1``: images fold back, and do not reach far."""

    def folding(z, t):
        return 4 * torch.cos(2 * z)

    path = ProductPath(TrigonometricInterpolant(), num_euclidean=1)
    z = torch.linspace(-3, 3, 400, dtype=torch.float64)[:, None]
    start, _, found = invert_with_log_density(folding, path, z, 1)
    halfway = start - 0.5 * folding(start, None)
    reached = start - folding(halfway, None)
    assert 0 < found.sum() < len(z)
    torch.testing.assert_close(reached[found], z[found], atol=1e-4, rtol=0)
