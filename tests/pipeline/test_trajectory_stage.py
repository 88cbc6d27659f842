"""A run whose reference and training data are files: nothing is simulated."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.data.shards import ShardedDataset
from tests.conftest import Job

NUM_BLOCKS = 3


@pytest.fixture(scope="module")
def frames(finished_run: Path) -> np.ndarray:
    """Frames of umbrellas, which are whole and warm; as a trajectory they mean nothing."""
    shards = ShardedDataset.open(finished_run / "simulate" / "umbrella").load(["positions_nm"])
    positions = shards["positions_nm"].reshape(-1, *shards["positions_nm"].shape[-2:])
    return positions[np.random.default_rng(0).permutation(len(positions))][:301]


def test_files_take_the_places_of_simulations(
    run_job: Job, frames: np.ndarray, tmp_path: Path
) -> None:
    log_weights = np.random.default_rng(1).normal(size=len(frames))
    np.savez(tmp_path / "reference.npz", positions_nm=frames, log_weights=log_weights)
    np.savez(tmp_path / "data.npz", positions_nm=frames)
    files = {"reference": "reference.npz", "dataset": "data.npz"}
    settings = [f"{section}.trajectory={tmp_path / file}" for section, file in files.items()]
    settings += [f"reference.num_blocks={NUM_BLOCKS}", "dataset.num_tasks=2"]
    # So short a run is still hot from its start.
    settings += ["target.temperature_kelvin=900"]
    result = run_job("--stage", "simulate", "--output", tmp_path, "--name", "run", *settings)
    assert result.exit_code == 0, result.output

    molecule = Molecule.from_sequence("ACE-ALA-NME")
    phi = dihedral(torch.from_numpy(frames), molecule.phi).numpy()
    kept = len(phi) // NUM_BLOCKS * NUM_BLOCKS
    weights, in_state = np.exp(log_weights[:kept]), (phi[:kept] > 0) & (phi[:kept] < 2)
    reference = Reference.load(tmp_path / "run" / "simulate")
    expected = np.log(weights[~in_state].sum() / weights[in_state].sum())
    assert reference.result["delta_f_kT"] == pytest.approx(expected, abs=1e-5)
    # Frame by frame: angle and weight belong together.
    order = reference.phi.argsort()
    np.testing.assert_allclose(reference.phi[order], np.sort(phi[:kept]), atol=1e-5)
    np.testing.assert_allclose(
        np.exp(reference.log_weights[order]), (weights / weights.sum())[phi[:kept].argsort()]
    )
    data = ShardedDataset.open(tmp_path / "run" / "simulate" / "dataset").load(["positions_nm"])
    angles = dihedral(torch.from_numpy(data["positions_nm"]), molecule.phi).numpy()
    np.testing.assert_allclose(angles, phi, atol=1e-5)


@pytest.mark.parametrize("option", ["--stage=simulate", "--dry-run"])
def test_a_bad_file_is_found_before_anything_is_made(
    run_job: Job, frames: np.ndarray, tmp_path: Path, option: str
) -> None:
    np.savez(tmp_path / "data.npz", positions_nm=frames * 10)
    setting = f"dataset.trajectory={tmp_path / 'data.npz'}"
    result = run_job(option, "--output", tmp_path, "--name", "run", setting)
    assert result.exit_code != 0
    assert "which are angstrom; divide by 10" in result.stderr
    assert not (tmp_path / "run" / "simulate" / "umbrella").exists()


def test_frames_of_another_temperature_are_told_by_their_energies(
    run_job: Job, frames: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "hot.npz", positions_nm=frames)
    setting = f"reference.trajectory={tmp_path / 'hot.npz'}"
    result = run_job("--stage", "simulate", "--output", tmp_path, "--name", "run", setting)
    assert result.exit_code != 0
    assert "energies that spread by about 5.5 kT at the target's 300 K, got 1" in result.stderr
