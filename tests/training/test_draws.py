"""What a rank draws: its own rows alone, and the same whatever the number of ranks."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.training.draws import BLOCK_SIZE, draw_batch
from bnce_dist.training.loop import per_rank_batch_size
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingTask

PATH = ProductPath(TrigonometricInterpolant(), num_euclidean=3, num_circular=1)


def flow_matching() -> FlowMatching:
    return FlowMatching(InternalVelocity(3, 1, width=8, depth=1), PATH)


def energy_matching(negatives: str) -> EnergyMatching:
    return EnergyMatching(
        LateFusionEnergy(3, 1, width=8, depth=1, num_features=4, time_width=4),
        PATH,
        score_weight=1.0,
        infonce_weight=1.0,
        num_negatives=7,
        negatives=negatives,
        time_exponent=2.0,
    )


OBJECTIVES = {
    "flow": flow_matching,
    "stratified": partial(energy_matching, "stratified"),
    "independent": partial(energy_matching, "independent"),
}


class CountedRows:
    """Data that notes how many of its rows are read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.num_read = data, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.num_read += len(rows)
        return self.data[rows]


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5000, PATH.dim)).astype(np.float32)


def test_parts_of_the_batch_are_disjoint_and_share_what_is_shared(task: TrainingTask) -> None:
    objective, data = task.create_objective(), task.open_data()
    whole = draw_batch(objective, data, task.settings, 7, slice(0, 32))
    halves = [
        draw_batch(objective, data, task.settings, 7, part) for part in (slice(16), slice(16, 32))
    ]
    for name in ("x_data", "x_noise"):
        assert torch.equal(torch.cat([half[name] for half in halves]), whole[name])
    assert all(torch.equal(half["scale"], whole["scale"]) for half in halves)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("world_size", [1, 2, 5, 64])
@pytest.mark.parametrize("batch_size", [3 * BLOCK_SIZE + 100, 9999])
def test_ranks_together_draw_what_one_rank_draws(
    objective, world_size: int, batch_size: int, data: np.ndarray
) -> None:
    settings = TrainSettings(num_steps=1000, global_batch_size=batch_size)
    module, size = objective(), min(batch_size, len(data))
    whole = draw_batch(module, data, settings, 3, slice(None))
    assert whole["t"].shape == (size,)
    parts = [
        draw_batch(
            module, data, settings, 3, slice(size * r // world_size, size * (r + 1) // world_size)
        )
        for r in range(world_size)
    ]
    for name, value in whole.items():
        if name in module.shared:
            assert all(torch.equal(part[name], value) for part in parts)
        else:
            assert torch.equal(torch.cat([part[name] for part in parts]), value)


def test_the_last_of_many_ranks_reads_no_more_than_its_own_rows(data: np.ndarray) -> None:
    counted = CountedRows(np.resize(data, (512 * BLOCK_SIZE + 1, PATH.dim)))
    settings = TrainSettings(num_steps=1000, global_batch_size=512 * BLOCK_SIZE)
    part = slice(511 * BLOCK_SIZE, 512 * BLOCK_SIZE)
    draw_batch(flow_matching(), counted, settings, 0, part)
    assert counted.num_read == BLOCK_SIZE


def test_blocks_and_steps_are_independent_and_steps_cover_all_times(data: np.ndarray) -> None:
    settings = TrainSettings(num_steps=1000, global_batch_size=4 * BLOCK_SIZE)

    def blocks(step: int) -> dict[str, list[Tensor]]:
        batch = draw_batch(flow_matching(), data, settings, step, slice(None))
        return {name: list(value.split(BLOCK_SIZE)) for name, value in batch.items()}

    first, second = blocks(0), blocks(1)
    for name in ("x_data", "x_noise", "t"):
        together = torch.stack([block.flatten() for block in first[name] + second[name]])
        # Of independent blocks; the standard deviation of each entry is 1 / sqrt(BLOCK_SIZE).
        assert together.corrcoef().fill_diagonal_(0).abs().max() < 5 / BLOCK_SIZE**0.5
    strata = torch.arange(BLOCK_SIZE)
    for times in first["t"]:
        assert torch.equal((times.double().sort().values * BLOCK_SIZE).floor().long(), strata)


@pytest.mark.parametrize("batch_size", [500, 512])
def test_a_full_batch_is_every_sample_once(task: TrainingTask, batch_size: int) -> None:
    settings = task.settings.model_copy(update={"global_batch_size": batch_size})
    objective, data = task.create_objective(), task.open_data()
    for step in range(2):
        batch = draw_batch(objective, data, settings, step, slice(None))
        assert np.array_equal(batch["x_data"].numpy(), data)
    assert per_rank_batch_size(settings, 4, num_samples=len(data)) == 125


def test_a_batch_takes_the_memory_of_a_batch_not_of_the_data(task: TrainingTask) -> None:
    # A file with a hole: large for whoever reads it, small on the disk.
    shape = (10_000_000, 3)
    np.lib.format.open_memmap(task.data_path, "w+", np.float32, shape).flush()
    objective, data = task.create_objective(), task.open_data()
    tracemalloc.start()
    draw_batch(objective, data, task.settings, 0, slice(0, 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e5 < data.nbytes
