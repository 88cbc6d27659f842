"""Structures to start from where nothing was simulated: all free torsions turned at random."""

import math

import numpy as np
import torch

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.langevin import relax
from bnce_dist.chem.simulation.settings import SpreadConfig
from bnce_dist.core.random import generator

# Above the lowest energy: less than what a straight angle or a bond of no length costs.
_BROKEN_KT = 200.0


@torch.no_grad()
def spread_structures(
    force_field: ForceField, molecule: Molecule, config: SpreadConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Turn every free torsion of the relaxed structure to a uniform angle and relax what comes out.

    Bonds, planes and chirality stay as they are; clashes part. Where a clash parted by turning a
    group inside out, a methyl's hydrogens mostly, the structure has no weight.

    Args:
        force_field: Of the simulation to come.
        molecule: With its relaxed structure.
        config: How many, and how they are weighted.
        seed: Of the angles.

    Returns: Positions ``(structures, atoms, 3)`` float32 [nm], and log weights ``(structures,)``,
        from their energies at ``config.heat`` times the temperature.
    """
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.unwhitened(zmatrix)
    relaxed = torch.from_numpy(molecule.positions_nm)[None]
    z_relaxed = coordinates.encode(relaxed)[0]
    z = z_relaxed.repeat(config.num_structures, 1)
    random = generator(seed, "spread")
    angles = z[:, coordinates.num_euclidean :]
    angles.uniform_(-math.pi, math.pi, generator=random)
    turned = coordinates.decode(z)[0].to(force_field.device, force_field.dtype)

    def forces(positions: torch.Tensor) -> torch.Tensor:
        return force_field.energy_and_forces_kj_mol(positions)[1]

    positions = relax(forces, turned, config.num_relaxation_steps)
    potential = force_field.reduced_potential(positions)
    intact = potential < potential.min() + _BROKEN_KT
    about_relaxed = WhitenedInternal(
        zmatrix, z_relaxed[0, : coordinates.num_euclidean], coordinates.unwhitening
    )
    intact[intact.clone()] = about_relaxed.in_basin(positions[intact])
    log_weights = torch.where(intact, -potential / config.heat, -torch.inf)
    return positions.cpu().float().numpy(), log_weights.double().cpu().numpy()
