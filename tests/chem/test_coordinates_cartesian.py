"""Centred Cartesian coordinates against an autograd Jacobian and their symmetries."""

import io
import math

import numpy as np
import pytest
import torch

from bnce_dist.chem.coordinates import CenteredCartesian, from_state
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator

NUM_ATOMS = 7


@pytest.fixture
def positions():
    shape = (50, NUM_ATOMS, 3)
    return 0.2 * torch.randn(shape, generator=generator("positions"), dtype=torch.float64) + 5.0


@pytest.fixture
def coordinates(positions):
    return CenteredCartesian.fit(positions)


def test_decode_inverts_encode_up_to_the_mean_position(coordinates, positions):
    z, log_det = coordinates.encode(positions)
    decoded, log_det_decode = coordinates.decode(z)
    assert z.shape == (50, coordinates.dim) == (50, 3 * (NUM_ATOMS - 1))
    torch.testing.assert_close(decoded, positions - positions.mean(1, keepdim=True))
    torch.testing.assert_close(coordinates.encode(decoded)[0], z)
    assert (log_det + log_det_decode).abs().max() < 1e-12


def test_log_det_is_that_of_the_autograd_jacobian(coordinates, positions):
    """Together with the mean position times sqrt(N), itself a unit vector, z spans the space."""

    def complete(x):
        z = coordinates.encode(x[None])[0][0]
        return torch.cat((z, x.mean(0) * math.sqrt(NUM_ATOMS)))

    jacobian = torch.autograd.functional.jacobian(complete, positions[0])
    expected = torch.linalg.slogdet(jacobian.reshape(3 * NUM_ATOMS, -1)).logabsdet
    assert float(coordinates.encode(positions)[1][0]) == pytest.approx(float(expected))


def test_translation_changes_nothing_and_rotation_rotates(coordinates, positions):
    random = torch.randn((3, 3), generator=generator("rotation"), dtype=torch.float64)
    rotation = torch.linalg.qr(random)[0]
    z, _ = coordinates.encode(positions)
    moved, _ = coordinates.encode(positions @ rotation + 2.0)
    torch.testing.assert_close(moved.unflatten(1, (-1, 3)), z.unflatten(1, (-1, 3)) @ rotation)


def test_fit_makes_the_coordinates_unit_variance(positions):
    weights = torch.arange(50.0)
    z, _ = CenteredCartesian.fit(positions, weights=weights).encode(positions)
    weighted = (weights[:, None] * z.square()).sum() / weights.sum() / z.shape[1]
    assert float(weighted) == pytest.approx(1.0)


def test_vectors_that_are_not_finite_are_flagged(coordinates):
    z = torch.zeros((3, coordinates.dim))
    z[1, 2], z[2, 0] = math.nan, math.inf
    assert coordinates.validity(z).tolist() == [True, False, False]
    assert coordinates.decode(z)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_is_plain_and_the_dtype_follows(coordinates, positions, dtype):
    buffer = io.BytesIO()
    torch.save(coordinates.to_state(), buffer)
    buffer.seek(0)
    rebuilt = from_state(torch.load(buffer, weights_only=True)).to(dtype)
    z, log_det = rebuilt.encode(positions)
    assert z.dtype == log_det.dtype == dtype
    torch.testing.assert_close(z.double(), coordinates.encode(positions)[0], atol=1e-5, rtol=1e-5)
    assert not list(rebuilt.parameters())


def test_bad_input_is_refused(coordinates, positions):
    with pytest.raises(InputError, match=r"expected \(batch, 7, 3\)"):
        coordinates.encode(positions[:, :6])
    positions[3, 2, 1] = math.inf
    with pytest.raises(InputError, match="atom 2 of sample 3"):
        coordinates.encode(positions)
    with pytest.raises(InputError, match="at least 2, got 1"):
        CenteredCartesian(1, 0.1)
    for scale_nm in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="a positive length"):
            CenteredCartesian(5, scale_nm)


def test_density_modulo_rotation_is_normalised():
    """Gaussian atoms, integrated over two bonds and their angle by Gauss-Legendre quadrature."""
    coordinates = CenteredCartesian(3, scale_nm=0.1)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(24))
    first, second, angle = torch.cartesian_prod(nodes + 1, nodes + 1, nodes + 1).T
    first, second, angle = 0.5 * first, 0.5 * second, 0.5 * math.pi * angle
    zero = torch.zeros_like(first)
    positions = torch.stack(
        [first, zero, zero, zero, zero, zero, second * angle.cos(), second * angle.sin(), zero], 1
    ).view(-1, 3, 3)
    z, log_det = coordinates.encode(positions)
    log_gaussian = -0.5 * z.square().sum(1) - 3 * math.log(2 * math.pi)
    density = (log_gaussian + log_det + coordinates.log_rotation_volume).exp()
    volume = first.square() * second.square() * angle.sin()
    weight = torch.cartesian_prod(weights, weights, weights).prod(1) * 0.5 * 0.5 * 0.5 * math.pi
    assert float((density * volume * weight).sum()) == pytest.approx(1.0, abs=1e-6)


def test_no_frames_have_no_scale():
    with pytest.raises(InputError, match="number of training samples: expected at least one"):
        CenteredCartesian.fit(torch.empty(0, NUM_ATOMS, 3))
