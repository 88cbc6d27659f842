"""Pairings of data and noise against brute force and SciPy; the noise stays what it was."""

import itertools

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from bnce_dist.core.couplings import (
    independent,
    kabsch,
    kabsch_rotation,
    optimal_transport,
    random_rotations,
)
from bnce_dist.core.random import generator

BATCH, ATOMS = 12, 5
MOLECULE = torch.arange(BATCH) % 3


def conformations(name: str, number: int = BATCH) -> torch.Tensor:
    x = torch.randn(number, ATOMS, 3, generator=generator(name), dtype=torch.float64)
    return x - x.mean(1, keepdim=True)


def squared_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).square().sum())


def test_independent_noise_is_left_alone() -> None:
    noise = conformations("noise")
    assert independent(conformations("data"), noise, MOLECULE) is noise


def test_optimal_transport_costs_no_more_than_any_permutation() -> None:
    data, noise = conformations("data"), conformations("noise")
    paired = optimal_transport(data, noise, MOLECULE)
    for molecule in range(3):
        rows = (molecule == MOLECULE).nonzero().flatten()
        own, found = noise[rows], paired[rows]
        costs = [
            squared_distance(data[rows], own[list(order)])
            for order in itertools.permutations(range(len(rows)))
        ]
        assert squared_distance(data[rows], found) <= min(costs) + 1e-9
        # The same samples in another order, none of another molecule.
        assert sorted(found.flatten().tolist()) == sorted(own.flatten().tolist())


def test_kabsch_is_the_alignment_of_scipy() -> None:
    data, noise = conformations("data"), conformations("noise")
    aligned = kabsch(data, noise, MOLECULE)
    for index in range(BATCH):
        rotation, _ = Rotation.align_vectors(data[index].numpy(), noise[index].numpy())
        np.testing.assert_allclose(aligned[index], rotation.apply(noise[index]), atol=1e-9)


def test_kabsch_rotations_are_proper_also_onto_the_mirror_image() -> None:
    data = conformations("data")
    rotation = kabsch_rotation(data, -data)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(BATCH, dtype=torch.float64))
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(BATCH, 3, 3)
    )
    assert squared_distance(kabsch(data, -data, MOLECULE), data) > 1


def test_kabsch_undoes_a_rotation_and_ignores_padding() -> None:
    data = conformations("data")
    padded = torch.cat([data, torch.zeros(BATCH, 2, 3, dtype=torch.float64)], dim=1)
    turned = padded @ random_rotations(BATCH, generator("turn")).double()
    torch.testing.assert_close(kabsch(padded, turned, MOLECULE), padded, atol=1e-5, rtol=0)


def test_aligned_noise_has_the_norms_of_the_noise() -> None:
    data, noise = conformations("data", 4000), conformations("noise", 4000)
    radii = kabsch(data, noise, torch.zeros(4000)).norm(dim=2)
    torch.testing.assert_close(radii, noise.norm(dim=2))
    # Data of random orientation leave every coordinate normal, of variance 1 - 1 / atoms.
    turned = data @ random_rotations(4000, generator("turn")).double()
    first = kabsch(turned, noise, torch.zeros(4000))[:, 0, 0]
    assert kstest(first / (1 - 1 / ATOMS) ** 0.5, "norm").pvalue > 1e-3


def test_random_rotations_are_uniform() -> None:
    rotation = random_rotations(4000, generator("uniform")).double()
    assert (torch.linalg.det(rotation) - 1).abs().max() < 1e-5
    # The image of an axis is uniform on the sphere: each coordinate is uniform in (-1, 1).
    for column in rotation[:, :, 0].T:
        assert kstest((column + 1) / 2, "uniform").pvalue > 1e-3
    # The angle of rotation has density (1 - cos) / pi, of mean cosine -1/2.
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert abs(cosine.mean() + 0.5) < 4 * cosine.std() / 4000**0.5
