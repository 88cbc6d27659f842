import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bnce_dist.report.conformations import basins, superpose


def test_basins_are_the_components_of_a_mixture_heaviest_peak_first() -> None:
    rng = np.random.default_rng(0)
    means, shares = np.array([[-75, -18], [-150, 175], [54, 38]]), [0.5, 0.3, 0.2]
    component = rng.choice(3, 20_000, p=shares)
    angles = means[component] + 8 * rng.standard_normal((20_000, 2))
    phi, psi = np.radians((angles + 180) % 360 - 180).T
    found = basins(phi, psi, np.zeros(20_000))
    assert [basin.share for basin in found] == pytest.approx(shares, abs=0.01)
    assert [component[basin.sample] for basin in found] == [0, 1, 2]

    # Weights, not counts, decide.
    down_weighted = basins(phi, psi, np.where(component == 0, np.log(0.02), 0.0))
    assert [component[basin.sample] for basin in down_weighted] == [1, 2, 0]
    without = basins(phi, psi, np.where(component == 0, -np.inf, 0.0))
    assert [component[basin.sample] for basin in without] == [1, 2]


def test_superposition_undoes_rigid_motion_and_keeps_handedness() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=(9, 3))
    turns = Rotation.random(4, random_state=2)
    moved = np.stack([first, *(turn.apply(first) + rng.normal(size=3) for turn in turns)])
    placed = superpose(moved, np.arange(1.0, 10.0))
    np.testing.assert_allclose(placed, np.broadcast_to(placed[0], placed.shape), atol=1e-9)
    distances = [np.linalg.norm(x[:, None] - x, axis=-1) for x in (first, placed[0])]
    np.testing.assert_allclose(*distances, atol=1e-9)
    volumes = [np.linalg.det(x[1:4] - x[0]) for x in (first, placed[0])]
    assert volumes[0] == pytest.approx(volumes[1])
