"""Barriers of torsions in no window: which bonds turn, and a bias that lowers known barriers."""

import math

import numpy as np
import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.rotamer_bias import (
    CEILING_KT,
    ORDER,
    PAIR_CEILING_KT,
    PAIR_ORDER,
    RotamerBias,
    backbone_pairs,
)

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
    bias = RotamerBias.none(1)
    for _ in range(3):
        samples = draw(8_000, bias.energy(GRID[:, None]))
        bias = bias.refined(samples[:, None])
    free_energy = wells(GRID) - wells(GRID).min()
    biased = free_energy + bias.energy(GRID[:, None])
    assert free_energy.max() > 7
    assert biased.max() < CEILING_KT + 1.5
    deep = free_energy < CEILING_KT - 1
    assert np.abs(bias.energy(GRID[:, None]))[deep].max() < 0.5


@pytest.mark.parametrize(
    ("sequence", "num_pairs"),
    [("ACE-ALA-NME", 0), ("KS", 0), ("ACE-ALA-GLY-NME", 1), ("ACE-ALA-LEU-ALA-NME", 2)],
)
def test_phi_and_psi_of_other_residues_are_pairs(sequence: str, num_pairs: int) -> None:
    molecule = Molecule.from_sequence(sequence)
    torsions = molecule.rotatable_torsions
    pairs = backbone_pairs(molecule, torsions)
    assert len(pairs) == num_pairs
    for phi, psi in pairs:
        about = [[molecule.atom_names[atom] for atom in torsions[t][1:3]] for t in (phi, psi)]
        assert about == [["N", "CA"], ["CA", "C"]]
        residues = {molecule.residue_index[torsions[t][2 - n]] for n, t in enumerate((phi, psi))}
        assert len(residues) == 1


def ramachandran(angles: np.ndarray) -> np.ndarray:
    """Two wells, 3 kT apart in depth, between which the way along phi alone is blocked [kT]."""
    phi, psi = angles[..., 0], angles[..., 1]
    deep = 9 * np.exp(3 * (np.cos(phi + 1.4) - 1) + 2 * (np.cos(psi - 2.0) - 1))
    shallow = 6 * np.exp(3 * (np.cos(phi - 1.0) - 1) + 2 * (np.cos(psi + 0.5) - 1))
    return -deep - shallow


def test_heights_of_a_pair_are_lowered_to_the_ceiling_and_wells_kept() -> None:
    axis = np.linspace(-math.pi, math.pi, 97)[:-1]
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    free_energy = ramachandran(grid) - ramachandran(grid).min()
    random, bias = np.random.default_rng(0), RotamerBias.none(2, pairs=[(0, 1)])
    for _ in range(3):
        density = np.exp(-free_energy - bias.energy(grid))
        cells = random.choice(len(grid), 30_000, p=density / density.sum())
        samples = grid[cells] + (axis[1] - axis[0]) * random.random((30_000, 2))
        bias = bias.refined(samples.astype(np.float32))
    biased = free_energy + bias.energy(grid)
    assert free_energy.max() > 8.5
    assert biased.max() < PAIR_CEILING_KT + 1.5
    deep = free_energy < PAIR_CEILING_KT - 1
    assert np.abs(bias.energy(grid))[deep].max() < 1.0
    # The shallow well is neither filled nor dug beyond the ceiling.
    shallow = np.linalg.norm(grid - [1.0, -0.5], axis=1).argmin()
    assert abs(biased[shallow] - PAIR_CEILING_KT) < 1.0


def test_slopes_of_pairs_are_the_derivatives_of_the_energy() -> None:
    surfaces = torch.randn(2, 2 * PAIR_ORDER + 1, 2 * PAIR_ORDER + 1, dtype=torch.float64)
    coefficients = torch.zeros(5, 2 * ORDER + 1, dtype=torch.float64)
    coefficients[4] = torch.randn(2 * ORDER + 1)
    bias = RotamerBias(coefficients, surfaces, [(2, 0), (1, 3)])
    angles = torch.rand(4, 5, dtype=torch.float64) * 6 - 3
    slopes, step = bias.slopes(angles), 1e-6
    for torsion in range(5):
        shift = step * torch.eye(5, dtype=torch.float64)[torsion]
        ahead, behind = (bias.energy((angles + sign * shift).numpy()) for sign in (1, -1))
        np.testing.assert_allclose(
            slopes[:, torsion], (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6
        )


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
