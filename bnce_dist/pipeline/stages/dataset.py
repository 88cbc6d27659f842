"""The data the emulator learns from: unbiased chains from umbrella frames, or a trajectory."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.chem.simulation.settings import DatasetConfig
from bnce_dist.chem.simulation.training_data import make_training_data
from bnce_dist.core.device import worker_device
from bnce_dist.core.random import seed_from
from bnce_dist.data.shards import ShardedDataset, ShardWorker
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.trajectory import FrameReader
from bnce_dist.training.progress import report_part


def run_dataset(context: StageContext) -> None:
    """Leave the data set ``dataset``."""
    config = context.config.dataset
    make_worker: Callable[[], ShardWorker] = partial(
        ChainWorker,
        target=context.target,
        config=config,
        simulate_folder=context.folder,
        seed=context.config.seed,
        compiled=context.config.cluster.compile_force_field,
    )
    if config.trajectory is not None:
        path = Path(config.trajectory)
        make_worker = partial(FrameReader, context.target, path, config.stride, config.num_tasks)
    context.executor.map_shards(
        make_worker,
        config.num_tasks,
        context.folder / "dataset",
        metadata=context.metadata({"positions_nm": "nm"}),
        label="data set",
    )


class ChainWorker:
    """Simulates independent chains.

    Args:
        target: What to simulate.
        config: How.
        simulate_folder: With the umbrella frames to start from and their weights.
        seed: Of the run; the shard's index is added to it.
        compiled: Whether to compile the force field.
    """

    def __init__(
        self,
        target: Target,
        config: DatasetConfig,
        simulate_folder: Path,
        seed: int,
        compiled: bool,
    ) -> None:
        self.target, self.config, self.seed = target, config, seed
        self.starts = ShardedDataset.open(simulate_folder / "umbrella").load(["positions_nm"])
        self.log_weights = Reference.load(simulate_folder).potential_log_weights
        self.dynamics = target.to(worker_device()).dynamics(config.chains_per_task, compiled)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the frames of one task's chains, ``positions_nm`` ``(frames, atoms, 3)``."""
        starts = self.starts["positions_nm"]
        frames = make_training_data(
            self.dynamics,
            self.target.molecule,
            starts.reshape(-1, *starts.shape[-2:]),
            self.log_weights,
            self.config,
            self.target.state,
            seed_from(self.seed, "dataset", index),
            partial(report_part, unit="ps"),
        )
        return {"positions_nm": frames.positions_nm}
