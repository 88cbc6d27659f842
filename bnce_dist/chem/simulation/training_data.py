"""Training data: unbiased chains whose starts hold more of a rare state than equilibrium does."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.langevin import Langevin, LangevinSettings, repartitioned_masses
from bnce_dist.chem.simulation.settings import DatasetConfig
from bnce_dist.chem.state import State
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of all chains, time by time.

    Args:
        positions_nm: ``(frames, atoms, 3)`` float32 [nm].
        phi: ``(frames,)`` float32 [rad].
        psi: ``(frames,)`` float32 [rad].
    """

    positions_nm: np.ndarray
    phi: np.ndarray
    psi: np.ndarray


@torch.no_grad()
def make_training_data(
    force_field: ForceField,
    molecule: Molecule,
    start_positions_nm: np.ndarray,
    start_log_weights: np.ndarray,
    config: DatasetConfig,
    state: State,
    seed: int,
    progress: Callable[[float, float], None] | None = None,
) -> TrainingFrames:
    """Run unbiased chains from weighted frames enriched in the rare state.

    The frames are in equilibrium within the state and within the rest as far as their weights and
    the time they are given make them; the share of the state is not. Reweighting recovers both.

    Args:
        force_field: Batched forces and the temperature; float32 is enough for dynamics.
        molecule: Gives the masses and the atoms of phi and psi.
        start_positions_nm: Frames to start from, ``(samples, atoms, 3)`` [nm].
        start_log_weights: Their log weights, ``(samples,)``.
        config: Frames, enrichment, and the chains of all tasks, of which this is one.
        state: The rare state.
        seed: Of the starts and the noise.
        progress: Called after every frame with the time that every chain has been simulated, and
            that it will be [ps].

    Raises: InputError: no start frame in the state or in the rest, or a chain explodes.
    """
    device = force_field.device
    random = generator(seed, "training data", device=device)
    candidates = torch.as_tensor(start_positions_nm, dtype=torch.float32)
    in_state = state.contains(
        dihedral(candidates, molecule.phi).numpy(), dihedral(candidates, molecule.psi).numpy()
    )
    chosen = draw_start_frames(in_state, start_log_weights, config, random)
    positions = candidates[chosen].to(device)
    settings = LangevinSettings(force_field.temperature_kelvin, config.timestep_fs)
    masses = repartitioned_masses(
        molecule.masses_dalton, molecule.elements, molecule.bonds,
        settings.hydrogen_mass_dalton,
    )  # fmt: skip
    dynamics = Langevin(lambda x: force_field.energy_and_forces_kj_mol(x)[1], masses, settings)
    velocities = dynamics.thermal_velocities(positions, random)
    step_ps = config.timestep_fs * 1e-3
    positions, velocities = dynamics.run(
        positions, velocities, round(config.equilibration_ps / step_ps), random
    )
    frames = []
    total_ps = config.equilibration_ps + config.frames_per_chain * config.frame_interval_ps
    for number in range(1, config.frames_per_chain + 1):
        positions, velocities = dynamics.run(
            positions, velocities, max(1, round(config.frame_interval_ps / step_ps)), random
        )
        frames.append(positions.cpu())
        if progress is not None:
            progress(config.equilibration_ps + number * config.frame_interval_ps, total_ps)
    kept = torch.cat(frames)
    return TrainingFrames(
        positions_nm=kept.numpy(),
        phi=dihedral(kept, molecule.phi).numpy(),
        psi=dihedral(kept, molecule.psi).numpy(),
    )


def draw_start_frames(
    in_state: np.ndarray,
    log_weights: np.ndarray,
    config: DatasetConfig,
    random: torch.Generator,
) -> Tensor:
    """Draw start frames by weight within the state and within the rest, ``(chains,)`` indices.

    Args:
        in_state: Whether each frame to draw from is in the state, ``(samples,)`` bool.
        log_weights: Their log weights, ``(samples,)``.
        config: Number of chains and the state's share.
        random: Source of the draws, which are made on its device.

    Raises: InputError: no frame in the state or in the rest.
    """
    weights = torch.from_numpy(np.exp(log_weights - log_weights.max()))
    inside = torch.from_numpy(in_state)
    num_in_state = round(config.state_fraction * config.chains_per_task)
    chosen = []
    for member, count in (
        (inside, num_in_state), (~inside, config.chains_per_task - num_in_state),
    ):  # fmt: skip
        part = weights * member
        if count == 0:
            continue
        if not part.sum() > 0:
            raise InputError(
                "frames to start from", expected="some in the state and some outside",
                got="one side empty",
                remedy="make more of them: reference.production_ps, spread.num_structures, or "
                "evaluate.num_samples of the run that is refined",
            )  # fmt: skip
        part = part.to(random.device)
        chosen.append(torch.multinomial(part, count, replacement=True, generator=random))
    return torch.cat(chosen).cpu()


def permute_equivalent_hydrogens(
    positions_nm: Tensor, molecule: Molecule, random: torch.Generator
) -> Tensor:
    """Relabel the hydrogens of every methyl and ammonium group by a random cyclic shift.

    Dynamics rarely turns such a group by a third, though nothing tells the outcome apart.
    Only cyclic shifts are used: exchanging two hydrogens would mirror the group.

    Args:
        positions_nm: ``(frames, atoms, 3)`` [nm].
        molecule: Names the groups.
        random: Source of the shifts.

    Returns: Positions of the same shape; energies are the same.
    """
    frames, atoms = positions_nm.shape[:2]
    source = torch.arange(atoms).repeat(frames, 1)
    for group in molecule.equivalent_hydrogens:
        members = torch.tensor(group)
        shift = torch.randint(len(group), (frames, 1), generator=random)
        source[:, members] = members[(torch.arange(len(group)) + shift) % len(group)]
    return positions_nm.gather(1, source[..., None].expand(-1, -1, 3))
