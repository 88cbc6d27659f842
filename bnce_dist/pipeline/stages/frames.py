"""Exact densities of a simulation's frames: the other end of Bennett's ratio."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.chem.validation import relabel_hydrogens
from bnce_dist.core.device import worker_device
from bnce_dist.core.random import generator
from bnce_dist.core.resampling import systematic_resampling
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.generate import num_shards

EXACT_FRAMES = "exact_frames"
"""Name of the data set."""
_UNITS = {
    "row": "1",
    "chain": "1",
    "in_state": "1",
    "log_density": "nat",
    "reduced_potential": "kT",
    "found": "1",
}


def weigh_frames(context: StageContext, emulator_path: Path) -> None:
    """Leave ``exact_frames``: on each side of the state, frames drawn by their weights.

    Nothing is left where the simulation's frames are not there, or nothing was simulated.
    """
    simulation = context.inputs["simulate"]
    config = context.config.evaluate
    if not (config.num_exact_frames and (simulation / "umbrella").exists()):
        return
    context.executor.map_shards(
        partial(
            FrameLikelihood,
            target=context.target,
            emulator_path=emulator_path,
            simulation=simulation,
            num_frames=config.num_exact_frames,
            shard_size=config.exact_shard_size,
            seed=context.config.seed,
        ),
        num_shards(config.num_exact_frames, config.exact_shard_size),
        context.folder / EXACT_FRAMES,
        metadata=context.metadata(_UNITS),
        label="exact likelihood of frames",
    )


class FrameLikelihood:
    """Computes the emulator's own log density of a simulation's frames, shard by shard.

    Args:
        target: Gives the state and the molecule.
        emulator_path: The emulator's file.
        simulation: Folder of the simulation.
        num_frames: How many are drawn, half of them on each side of the state.
        shard_size: Frames of each shard but the last.
        seed: Of the run; decides the draw.
    """

    def __init__(
        self,
        target: Target,
        emulator_path: Path,
        simulation: Path,
        num_frames: int,
        shard_size: int,
        seed: int,
    ) -> None:
        self.target, self.emulator = target, Emulator.load(emulator_path).to(worker_device())
        frames = ShardedDataset.open(simulation / "umbrella")
        positions = frames.load(["positions_nm"])["positions_nm"]
        reference = Reference.load(simulation)
        self.num_times, self.num_chains = len(positions) // len(frames), positions.shape[1]
        self.positions = torch.from_numpy(positions.reshape(-1, *positions.shape[2:]))
        self.potential = torch.from_numpy(reference.reduced_potential)
        self.in_state = torch.from_numpy(target.in_state(self.positions.double()))
        log_weights = torch.from_numpy(reference.potential_log_weights)
        noise = generator(seed, "frames")
        rows = [
            systematic_resampling(torch.where(side, log_weights, -torch.inf), count, noise)
            for side, count in (
                (self.in_state, num_frames // 2),
                (~self.in_state, num_frames - num_frames // 2),
            )
        ]
        self.rows = torch.cat(rows).split(shard_size)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the log densities of one shard.

        Frames that the emulator's map leads nowhere near, or that its coordinates do not hold, are
        not ``found``.
        """
        rows = self.rows[index]
        coordinates = self.emulator.coordinates
        positions = relabel_hydrogens(self.target.molecule, self.positions[rows].double())
        positions = positions.to(self.emulator.device)
        usable = coordinates.in_basin(positions)
        log_density = positions.new_full((len(rows),), torch.nan)
        z, log_det = coordinates.encode(positions[usable])
        log_density_z, found = self.emulator.log_density_z(z.float())
        log_density[usable] = torch.where(found, log_density_z.double() + log_det, torch.nan)
        return {
            "row": rows.numpy(),
            "chain": self._chain(rows).numpy(),
            "in_state": self.in_state[rows].numpy(),
            "log_density": log_density.cpu().numpy(),
            "reduced_potential": self.potential[rows].numpy(),
            "found": log_density.isfinite().cpu().numpy(),
        }

    def _chain(self, rows: torch.Tensor) -> torch.Tensor:
        """Return which chain of which simulation each frame is of."""
        simulation = rows // (self.num_times * self.num_chains)
        return simulation * self.num_chains + rows % self.num_chains
