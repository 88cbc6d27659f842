"""Does the emulator cover what a simulation visits? Its learned density on umbrella frames."""

import numpy as np
import torch

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.chem.validation import relabel_hydrogens
from bnce_dist.core.reliability import forward_ess_fraction
from bnce_dist.core.weights import Weights
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.target import Target

_MAX_FRAMES = 5_000


@torch.no_grad()
def forward_check(
    folder: RunFolder, samples: Samples, reference: Reference, target: Target
) -> dict[str, float]:
    """Return forward and reverse effective sample sizes on each side of the state.

    Both are of the learned density. Weights of the emulator's own samples, the reverse ones, cannot
    show a mode that it lacks; those of frames of the simulation can. The simulation is this run's
    own, whose frames its training data started from.

    Args:
        folder: Of the run, whose stages are finished.
        samples: The evaluated ones.
        reference: The simulation.
        target: Gives the state and the molecule.

    Returns: ``forward_ess_*`` and ``reverse_ess_*``, shares of the number of samples; nothing for
        a side that the simulation has no frame in, or where its frames are not there.
    """
    if not (folder.stage("simulate") / "umbrella").exists():  # adopted without its frames
        return {}
    positions, potential, log_frame_weights = _frames(folder, reference)
    density = LearnedDensity.load(folder.stage("train_energy") / "energy.pt")
    positions = relabel_hydrogens(target.molecule, positions)
    usable = density.coordinates.in_basin(positions).numpy()
    log_density = np.full(len(positions), np.nan)
    log_density[usable] = density.log_density(positions[usable]).numpy()
    log_weights = -potential - log_density
    weights = np.exp(log_frame_weights - log_frame_weights.max())
    in_state = target.in_state(positions)
    result = {}
    learned = samples.log_weights_learned
    for name, frames, own in (
        ("in_state", in_state & usable, samples.in_state),
        ("outside_state", ~in_state & usable, ~samples.in_state),
    ):
        if weights[frames].sum() > 0 and np.isfinite(learned[own]).any():
            result[f"forward_ess_{name}"] = forward_ess_fraction(
                log_weights[frames], weights[frames]
            )
            result[f"reverse_ess_{name}"] = Weights(learned[own]).ess_fraction
    return result if len(result) == 2 * len(("in_state", "outside_state")) else {}


def _frames(folder: RunFolder, reference: Reference) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return recorded positions, their reduced potentials and their log weights, thinned."""
    positions = ShardedDataset.open(folder.stage("simulate") / "umbrella").load(["positions_nm"])[
        "positions_nm"
    ]
    atoms = positions.shape[-2:]
    # At random: every so many of them would be the same few chains at all times.
    order = np.random.default_rng(0).permutation(len(reference.reduced_potential))
    kept = np.sort(order[:_MAX_FRAMES])
    flat = torch.from_numpy(positions.reshape(-1, *atoms)[kept]).double()
    return flat, reference.reduced_potential[kept], reference.potential_log_weights[kept]
