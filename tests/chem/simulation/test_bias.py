"""Barriers of side chains: which bonds turn, and a bias that lowers known barriers."""

import math

import numpy as np
import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.bias import ORDER, RotamerBias

GRID = np.linspace(-math.pi, math.pi, 721)


def wells(chi: np.ndarray) -> np.ndarray:
    """Three wells of different depth between barriers of about 7 kT [kT]."""
    return 3.5 * (1 + np.cos(3 * chi)) + 0.8 * np.cos(chi - 0.5)


def draw(num_samples: int, bias: np.ndarray) -> np.ndarray:
    density = np.exp(-wells(GRID[:-1]) - bias[:-1])
    cell = GRID[1] - GRID[0]
    random = np.random.default_rng(0)
    cells = random.choice(len(density), num_samples, p=density / density.sum())
    return (GRID[cells] + cell * random.random(num_samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACE-ALA-NME", []),
        ("AC", ["N-CA-CB-SG", "N-CA-C-O"]),
        ("GN", ["N-CA-CB-CG", "N-CA-C-O", "CA-CB-CG-OD1"]),
        # Neither the rings of proline and phenylalanine nor the peptide bond.
        ("PF", ["N-CA-CB-CG", "N-CA-C-O", "CA-CB-CG-CD1"]),
        # Other residues than the one phi and psi are of turn as well.
        ("ACE-ALA-GLY-NME", ["C-N-CA-C", "N-CA-C-O"]),
    ],
)
def test_bonds_that_turn(sequence: str, expected: list[str]) -> None:
    molecule = Molecule.from_sequence(sequence)
    names = [
        "-".join(molecule.atom_names[atom] for atom in rotor)
        for rotor in molecule.rotatable_torsions
    ]
    assert sorted(names) == sorted(expected)


def test_barriers_are_lowered_to_the_ceiling_and_wells_kept() -> None:
    ceiling = 2.0
    bias = RotamerBias.none(1)
    for _ in range(3):
        samples = draw(8_000, bias.energy(GRID[:, None]))
        bias = bias.refined(samples[:, None], ceiling)
    free_energy = wells(GRID) - wells(GRID).min()
    biased = free_energy + bias.energy(GRID[:, None])
    assert free_energy.max() > 7
    assert biased.max() < ceiling + 1.5
    deep = free_energy < ceiling - 1
    assert np.abs(bias.energy(GRID[:, None]))[deep].max() < 0.5


def test_slopes_are_the_derivatives_of_the_energy() -> None:
    coefficients = torch.randn(3, 2 * ORDER + 1, dtype=torch.float64)
    angles = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    # The series written out, independently of the class.
    multiples = torch.arange(1, ORDER + 1) * angles[..., None]
    parts = [torch.ones_like(angles[..., None]), torch.cos(multiples), torch.sin(multiples)]
    energy = (torch.cat(parts, dim=-1) * coefficients).sum((1, 2))
    (expected,) = torch.autograd.grad(energy.sum(), angles)
    bias = RotamerBias(coefficients)
    np.testing.assert_allclose(bias.energy(angles.detach().numpy()), energy.detach().numpy())
    torch.testing.assert_close(bias.slopes(angles.detach()), expected)
