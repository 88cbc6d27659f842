"""A finished run taken up again: its weighted samples and frames, with their positions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.results import Evaluation, load_evaluation


@dataclass(frozen=True)
class ReferenceFrames:
    """Weighted frames of a run's reference whose positions were recorded.

    Args:
        positions_nm: ``(frames, atoms, 3)`` [nm].
        log_weights: ``(frames,)`` [nats].
        replica: Independent simulation of each, ``(frames,)``.
    """

    positions_nm: NDArray[np.float32]
    log_weights: NDArray[np.float64]
    replica: NDArray[np.integer]


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left.

    Args:
        folder: Of the run.
        config: Of the run.
        target: Of the run.
        evaluation: What it ended with; some of its samples have a weight.
    """

    folder: RunFolder
    config: Config
    target: Target
    evaluation: Evaluation

    @classmethod
    def open(cls, path: Path) -> "FinishedRun":
        """Read a run's folder.

        Raises: InputError: no finished run, or no sample with a weight.
        """
        folder = RunFolder(path)
        if not (path / "metrics.json").exists():
            raise InputError(
                f"folder {path}",
                expected="a finished run",
                got="no metrics.json in it",
                remedy="name the folder of one molecule's run (of a fleet: FLEET/MOLECULE)",
            )
        config = load_config(Config, folder.config_path)
        target = Target.from_config(config.target)
        evaluation = load_evaluation(folder, target)
        if not evaluation.samples.has_weight:
            raise InputError(
                f"run {path}", expected="samples with weights", got="none",
                remedy="see the verdict of the run",
            )  # fmt: skip
        return cls(folder, config, target, evaluation)

    def positions_nm(self) -> NDArray[np.floating]:
        """Return the positions of all samples, ``(samples, atoms, 3)`` [nm]."""
        return self.evaluation.dataset.load(["positions_nm"])["positions_nm"]

    def reference_frames(self) -> ReferenceFrames | None:
        """Return the reference's frames, where they are there."""
        path, reference = self.folder.stage("simulate") / "umbrella", self.evaluation.reference
        if reference is None or not path.exists():
            return None
        shards = ShardedDataset.open(path)
        positions = shards.load(["positions_nm"])["positions_nm"]
        _, num_chains, *atoms = positions.shape
        positions = positions.reshape(-1, *atoms)
        # Of several simulations each is a replica; of one trajectory each of its blocks.
        rows = np.arange(len(positions))
        is_trajectory = self.config.reference.trajectory is not None
        replica = rows % num_chains if is_trajectory else rows // (len(rows) // len(shards))
        return ReferenceFrames(positions, reference.potential_log_weights, replica)
