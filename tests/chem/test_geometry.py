import math

import mdtraj
import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral, signed_volume


@pytest.mark.parametrize("angle", [-2.5, -math.pi / 2, 0.0, 0.3, 1.9, math.pi])
def test_dihedral_of_a_hand_made_chain(angle: float) -> None:
    # Looking from atom 2 to atom 3 (along z), atom 4 lies clockwise of atom 1 by `angle`.
    chain = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [math.cos(angle), math.sin(angle), 1]]
    positions = torch.tensor([chain], dtype=torch.float64)
    assert dihedral(positions, (0, 1, 2, 3)).item() == pytest.approx(angle, abs=1e-12)


def test_dihedral_agrees_with_mdtraj() -> None:
    positions = np.random.default_rng(0).normal(size=(50, 6, 3)).astype(np.float32)
    topology = mdtraj.Topology()
    residue = topology.add_residue("UNK", topology.add_chain())
    for _ in range(6):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology), [[5, 0, 3, 2]])
    actual = dihedral(torch.from_numpy(positions), (5, 0, 3, 2))
    np.testing.assert_allclose(actual.numpy(), expected[:, 0], atol=1e-4)


def test_signed_volume_is_the_determinant_and_changes_sign_in_a_mirror() -> None:
    positions = torch.randn(7, 4, 3, dtype=torch.float64, generator=torch.manual_seed(0))
    c, a, b, d = positions.unbind(1)
    expected = torch.linalg.det(torch.stack([a - c, b - c, d - c], dim=1))
    torch.testing.assert_close(signed_volume(positions, (0, 1, 2, 3)), expected)
    mirrored = positions * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(signed_volume(mirrored, (0, 1, 2, 3)), -expected)
