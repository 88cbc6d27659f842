"""Annealing of positions: what is no molecule stays where it is."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.core.annealing import AnnealingSchedule
from bnce_dist.data.shards import DatasetMetadata, fill_shards
from bnce_dist.runs.pretrained.annealing import AnnealingWorker
from bnce_dist.runs.pretrained.workers import SAMPLE_UNITS

SCHEDULE = AnnealingSchedule((0.5, 1.0), (0.1, 0.1))
PHI, PSI = (0, 1, 2, 3), (1, 2, 3, 4)


class Shifter:
    """Moves every molecule by a nanometre and says how often it was asked."""

    def __init__(self) -> None:
        self.density = SimpleNamespace(
            device=torch.device("cpu"),
            coordinates=SimpleNamespace(encode=lambda x: (x.flatten(1), None)),
        )
        self.target = SimpleNamespace(molecule=SimpleNamespace(phi=PHI, psi=PSI))
        self.calls = 0

    def anneal(self, z: torch.Tensor, schedule: AnnealingSchedule, noise: torch.Generator) -> dict:
        self.calls += 1
        positions = z.double().reshape(len(z), -1, 3) + 1.0
        moved = torch.ones(len(z), schedule.num_levels, dtype=torch.bool)
        return {
            "positions_nm": positions,
            "phi": dihedral(positions, PHI),
            "psi": dihedral(positions, PSI),
            "reduced_potential": torch.rand(len(z), generator=noise),
            "log_weights": torch.zeros(len(z)),
            "accepted": moved,
            "clashed": ~moved,
        }


def samples(folder: Path, intact: list[list[bool]]) -> Path:
    def draw(index: int) -> dict[str, np.ndarray]:
        whole = np.array(intact[index])
        positions = np.random.default_rng(index).normal(size=(len(whole), 5, 3))
        nothing = np.zeros(len(whole), dtype=bool)
        return {
            "positions_nm": positions.astype(np.float32),
            "intact": whole,
            "mirrored": nothing,
            "mixed": nothing,
        }

    sizes = [len(shard) for shard in intact]
    metadata = DatasetMetadata("molecule", SAMPLE_UNITS, {})
    fill_shards(folder, sizes, draw, metadata, lambda done: None)
    return folder


def test_broken_samples_stay_without_weight(tmp_path: Path) -> None:
    folder = samples(tmp_path, [[True, False, True], [False, False]])
    shifter = Shifter()
    worker = AnnealingWorker(lambda: shifter, SCHEDULE, folder, seed=3)  # type: ignore[arg-type,return-value]
    before = worker.samples.read(0)["positions_nm"]
    arrays = worker(0)
    assert np.isneginf(arrays["log_weights"]).tolist() == [False, True, False]
    assert np.isposinf(arrays["reduced_potential"]).tolist() == [False, True, False]
    np.testing.assert_array_equal(arrays["positions_nm"][1], before[1])
    np.testing.assert_allclose(arrays["positions_nm"][[0, 2]], before[[0, 2]] + 1, atol=1e-5)
    assert arrays["accepted"].tolist() == [[True] * 2, [False] * 2, [True] * 2]
    assert not arrays["clashed"].any()
    # A shard is a function of its index, whatever was annealed before.
    np.testing.assert_array_equal(worker(0)["reduced_potential"], arrays["reduced_potential"])
    # Nothing to anneal is nothing to ask for.
    calls = shifter.calls
    assert np.isneginf(worker(1)["log_weights"]).all()
    assert shifter.calls == calls
