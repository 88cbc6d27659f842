"""The data an emulator learns from: unbiased chains from weighted starts, or a trajectory."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.chem.simulation.settings import DatasetConfig, SpreadConfig
from bnce_dist.chem.simulation.spread import spread_structures
from bnce_dist.chem.simulation.training_data import make_training_data
from bnce_dist.core.device import worker_device
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.data.shards import ShardedDataset, ShardWorker
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.trajectory import FrameReader
from bnce_dist.training.progress import report_part

Starts = Callable[[Target, ForceField, int], tuple[np.ndarray, np.ndarray]]
"""Makes structures to start from, ``(structures, atoms, 3)`` [nm], and their log weights, given the
target, its dynamics and the seed of the run."""

_MIN_STARTS = 300
"""Frames on each side of the state that chains effectively start from."""


def run_dataset(context: StageContext) -> None:
    """Leave the data set ``dataset``, of chains from frames of the umbrella simulation."""
    config = context.config.dataset
    if config.trajectory is not None:
        path = Path(config.trajectory)
        _make(context, partial(FrameReader, context.target, path, config.stride, config.num_tasks))
    else:
        _make(context, _chains(context, partial(umbrella_starts, context.folder)))


def run_spread_dataset(context: StageContext) -> None:
    """Leave the data set ``dataset``, of chains from structures that were turned at random."""
    _make(context, _chains(context, partial(spread_starts, context.config.spread)))


def run_annealed_dataset(context: StageContext, annealed: Path) -> None:
    """Leave the data set ``dataset``, of chains from annealed samples of a finished run.

    Args:
        context: Of the stage.
        annealed: The samples' data set.
    """
    _make(context, _chains(context, partial(annealed_starts, annealed)))


def umbrella_starts(
    folder: Path, target: Target, dynamics: ForceField, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of the umbrella simulation in a folder (see `Starts`).

    Where few of them have most of the weight, as of a chain whose other torsions are biased too,
    weights are tempered: what no chain visits no emulator learns, and a wrong population is only
    a weight of its samples.
    """
    positions = ShardedDataset.open(folder / "umbrella").load(["positions_nm"])["positions_nm"]
    positions = positions.reshape(-1, *positions.shape[-2:])
    frames, molecule = torch.from_numpy(positions), target.molecule
    phi, psi = (dihedral(frames, torsion).numpy() for torsion in (molecule.phi, molecule.psi))
    log_weights = Reference.load(folder).potential_log_weights
    return positions, _per_side(log_weights, target.state.contains(phi, psi), _tempered)


def annealed_starts(
    annealed: Path, target: Target, dynamics: ForceField, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return annealed samples with their weights, the heaviest of each side of the state clipped.

    They are those of the learned density: exact ones are known of few samples (see `Starts`).
    """
    arrays = ShardedDataset.open(annealed).load(["positions_nm", "log_weights", "phi", "psi"])
    in_state = target.state.contains(arrays["phi"], arrays["psi"])
    return arrays["positions_nm"], _per_side(arrays["log_weights"], in_state, _clipped)


def _per_side(
    log_weights: np.ndarray, in_state: np.ndarray, change: Callable[[Weights], Weights]
) -> np.ndarray:
    """Return log weights that were changed on each side of the state by itself."""
    changed = log_weights.copy()
    has_weight = np.isfinite(log_weights)
    for side in (in_state & has_weight, ~in_state & has_weight):
        if side.sum() > 1:
            changed[side] = change(Weights(log_weights[side])).log_weights
    return changed


def _tempered(weights: Weights) -> Weights:
    return weights.tempered(min(_MIN_STARTS, weights.num_samples / 2))


def _clipped(weights: Weights) -> Weights:
    return weights.clipped()[0]


def spread_starts(
    config: SpreadConfig, target: Target, dynamics: ForceField, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return structures whose torsions were turned at random (see `Starts`)."""
    return spread_structures(dynamics, target.molecule, config, seed)


def _chains(context: StageContext, starts: Starts) -> Callable[[], ShardWorker]:
    return partial(
        ChainWorker,
        target=context.target,
        config=context.config.dataset,
        starts=starts,
        seed=context.config.seed,
        compiled=context.config.cluster.compile_force_field,
    )


def _make(context: StageContext, make_worker: Callable[[], ShardWorker]) -> None:
    context.executor.map_shards(
        make_worker,
        context.config.dataset.num_tasks,
        context.folder / "dataset",
        metadata=context.metadata({"positions_nm": "nm"}),
        label="data set",
    )


class ChainWorker:
    """Simulates independent chains.

    Args:
        target: What to simulate.
        config: How.
        starts: Where from.
        seed: Of the run; the shard's index is added to it.
        compiled: Whether to compile the force field.
    """

    def __init__(
        self, target: Target, config: DatasetConfig, starts: Starts, seed: int, compiled: bool
    ) -> None:
        self.target, self.config, self.seed = target, config, seed
        self.dynamics = target.to(worker_device()).dynamics(config.chains_per_task, compiled)
        self.positions_nm, self.log_weights = starts(target, self.dynamics, seed)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the frames of one task's chains, ``positions_nm`` ``(frames, atoms, 3)``."""
        frames = make_training_data(
            self.dynamics,
            self.target.molecule,
            self.positions_nm,
            self.log_weights,
            self.config,
            self.target.state,
            seed_from(self.seed, "dataset", index),
            partial(report_part, unit="ps"),
        )
        return {"positions_nm": frames.positions_nm}
