"""Energies of chains, weighted by what their sides of the state weigh."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.data.shards import DatasetMetadata, fill_shards
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.simulated_energies import SimulatedEnergies, simulated_energies

NUM_CHAINS, NUM_FRAMES = 64, 150
TARGET = SimpleNamespace(
    # One coordinate is the energy, another says which side a frame is on.
    force_field=SimpleNamespace(reduced_potential=lambda positions: positions[:, 0, 0]),
    in_state=lambda positions: positions[:, 0, 1].numpy() > 0,
)
CONFIG = Config.model_validate({"dataset": {"num_chains": NUM_CHAINS, "num_tasks": 2}})


def of_run(folder: Path, settings: Config, chains_shift: float = 0.0) -> SimulatedEnergies:
    """Return energies of a run whose state, a tenth of the weight, lies 3 kT above the rest."""
    rng = np.random.default_rng(0)
    shape = (NUM_FRAMES, NUM_CHAINS // 2)
    stage = RunFolder(folder).stage("simulate")

    def chains(index: int) -> dict[str, np.ndarray]:
        in_state = np.arange(shape[1]) < shape[1] // 4
        energy = rng.normal(np.where(in_state, 3.0, 0.0), 1.0, shape)
        energy[:, 1::2] += chains_shift
        positions = np.zeros((*shape, 2, 3), dtype=np.float32)
        positions[:, :, 0, 0], positions[:, :, 0, 1] = energy, np.where(in_state, 1.0, -1.0)
        return {"positions_nm": positions.reshape(-1, 2, 3)}

    metadata = DatasetMetadata("molecule", {"positions_nm": "nm"}, {})
    sizes = [shape[0] * shape[1]] * 2
    fill_shards(stage / "dataset", sizes, chains, metadata, lambda done: None)
    few, result = np.zeros(3), {"delta_f_kT": math.log(9)}
    reference = Reference(result, few, few, few, few, few + 7.0, few)
    return simulated_energies(RunFolder(folder), settings, TARGET, reference)  # type: ignore[arg-type]


def test_sides_weigh_what_the_reference_says(tmp_path: Path) -> None:
    found = of_run(tmp_path, CONFIG)
    weights, u = np.exp(found.energies.log_weights), found.energies.reduced_potential
    assert len(u) == NUM_CHAINS * NUM_FRAMES
    mean = np.average(u, weights=weights)
    assert mean == pytest.approx(0.1 * 3.0, abs=0.06)
    # Within and between the sides.
    assert np.average((u - mean) ** 2, weights=weights) == pytest.approx(1 + 0.09 * 9, abs=0.1)
    assert found.baseline_kT is not None
    assert found.baseline_kT < 0.15


def test_halves_differ_by_what_chains_have_not_forgotten(tmp_path: Path) -> None:
    found = of_run(tmp_path, CONFIG, chains_shift=0.8)
    assert found.baseline_kT == pytest.approx(0.8, abs=0.1)


def test_frames_of_others_are_not_taken_for_chains(tmp_path: Path) -> None:
    settings = {"num_chains": NUM_CHAINS, "num_tasks": 2, "trajectory": "frames.dcd"}
    found = of_run(tmp_path, Config.model_validate({"dataset": settings}))
    assert (found.energies.reduced_potential == 7.0).all()
    assert found.baseline_kT is None
    assert torch.is_grad_enabled()
