"""Energies of a run's simulation, which those of its samples are compared with."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bnce_dist.chem.simulation.reference_frames import Energies, Reference
from bnce_dist.core.metrics import wasserstein_2
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config

_MAX_FRAMES = 20_000


@dataclass(frozen=True)
class SimulatedEnergies:
    """Energies of a simulation, and how well they are known.

    Args:
        energies: Weighted to equilibrium.
        baseline_kT: 2-Wasserstein distance of two halves of the simulation [kT]; None if it has
            none.
    """

    energies: Energies
    baseline_kT: float | None


def simulated_energies(
    folder: RunFolder, config: Config, target: Target, reference: Reference
) -> SimulatedEnergies:
    """Return the energies of the unbiased chains, or of the reference where there are none.

    The chains are in equilibrium on each side of the state, and the reference says what the sides
    weigh. Frames of umbrella sampling have weights of their own, by which a few hundred of tens of
    thousands count: too few for a distribution as wide as that of energies.

    Args:
        folder: Of the run.
        config: Of the run.
        target: Of the run.
        reference: Of the run.
    """
    path = folder.stage("simulate") / "dataset"
    if config.dataset.trajectory is not None or not path.exists():
        return SimulatedEnergies(reference.energies, None)
    positions, first_half = _frames(ShardedDataset.open(path), config.dataset.chains_per_task)
    with torch.no_grad():
        potential = target.force_field.reduced_potential(positions.double()).numpy()
    in_state = target.in_state(positions)
    sides = [part for part in (in_state, ~in_state) if part.any()]
    if len(sides) < len(("in the state", "outside")):
        return SimulatedEnergies(reference.energies, None)
    weight_in_state = 1 / (1 + np.exp(reference.result["delta_f_kT"]))
    log_weights = np.where(
        in_state,
        np.log(weight_in_state / in_state.mean()),
        np.log((1 - weight_in_state) / (~in_state).mean()),
    )
    halves = [(potential[half], np.exp(log_weights[half])) for half in (first_half, ~first_half)]
    (one, its_weights), (other, other_weights) = halves
    baseline = wasserstein_2(one, other, its_weights, other_weights) if len(other) else None
    return SimulatedEnergies(Energies(potential, log_weights), baseline)


def _frames(dataset: ShardedDataset, num_chains: int) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """Return some frames of every chain, and which are of the first half of the chains."""
    shards = [shard["positions_nm"] for shard in dataset]
    atoms = shards[0].shape[-2:]
    by_time = np.concatenate([shard.reshape(-1, num_chains, *atoms) for shard in shards], axis=1)
    every = max(1, by_time[..., 0, 0].size // _MAX_FRAMES)
    kept = by_time[::-1][::every]
    is_first = np.arange(kept.shape[1]) % 2 == 0
    return torch.from_numpy(kept.reshape(-1, *atoms)), np.tile(is_first, len(kept))
