"""What training chains start from: frames of the umbrella simulation, as evenly as needed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.core.weights import Weights
from bnce_dist.pipeline.stages.dataset import umbrella_starts
from bnce_dist.runs.finished import FinishedRun

Sides = tuple[tuple[np.ndarray, np.ndarray], ...]


def starts_with(run: Path, folder: Path, spread: float) -> Sides:
    """Return the log weights of frames on each side of the state, as they were and as starts."""
    simulate = Path(shutil.copytree(run / "simulate", folder / "simulate"))
    path = simulate / "reference" / "frames.npz"
    arrays = dict(np.load(path))
    num_frames = len(arrays["potential_log_weights"])
    given = spread * np.random.default_rng(0).standard_normal(num_frames)
    np.savez(path, **arrays | {"potential_log_weights": given})
    target = FinishedRun.open(run).target
    positions, starts = umbrella_starts(simulate, target, None, 0)  # type: ignore[arg-type]
    torsions = (target.molecule.phi, target.molecule.psi)
    phi, psi = (dihedral(torch.from_numpy(positions), torsion).numpy() for torsion in torsions)
    in_state = target.state.contains(phi, psi)
    return tuple((given[side], starts[side]) for side in (in_state, ~in_state))


def test_chains_start_from_many_frames_though_few_have_all_the_weight(
    finished_run: Path, tmp_path: Path
) -> None:
    for given, starts in starts_with(finished_run, tmp_path, spread=4.0):
        enough = min(300, len(given) / 2)
        assert Weights(given).ess < 0.2 * enough
        assert Weights(starts).ess == pytest.approx(enough, rel=0.02)
        np.testing.assert_array_equal(np.argsort(starts), np.argsort(given))


def test_frames_with_even_weights_start_chains_by_their_weights(
    finished_run: Path, tmp_path: Path
) -> None:
    for given, starts in starts_with(finished_run, tmp_path, spread=0.3):
        np.testing.assert_array_equal(starts, given)
