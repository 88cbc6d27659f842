"""Structures with turned torsions: the same molecule, everywhere, weighted by its energy."""

import math
from functools import cache

import numpy as np
import openmm
import pytest
import torch

from bnce_dist.chem.geometry import dihedral, signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.simulation.settings import SpreadConfig
from bnce_dist.chem.simulation.spread import spread_structures

CONFIG = SpreadConfig(num_structures=64, num_relaxation_steps=150)
TEMPERATURE_KELVIN = 300.0


@cache
def molecule() -> Molecule:
    return Molecule.from_sequence("AS")


@cache
def spread(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    system = build_system(molecule())
    force_field = ForceField.from_system(system, TEMPERATURE_KELVIN, dtype=torch.float32)
    positions, log_weights = spread_structures(force_field, molecule(), CONFIG, seed)
    return torch.from_numpy(positions).double(), log_weights


def test_structures_are_the_same_molecule() -> None:
    positions, log_weights = spread()
    usable = np.isfinite(log_weights)
    assert usable.mean() > 0.8
    for centre in molecule().chirality_centres:
        assert (signed_volume(positions[usable], centre) > 0).all()
    first, second = torch.tensor(molecule().bonds).T
    relaxed = torch.from_numpy(molecule().positions_nm)
    lengths = (positions[:, first] - positions[:, second]).norm(dim=-1)
    assert (lengths[usable] / (relaxed[first] - relaxed[second]).norm(dim=-1) - 1).abs().max() < 0.2
    (omega,) = molecule().omegas
    assert (dihedral(positions[usable], omega).cos() < 0).all()


@pytest.mark.parametrize("torsion", ["phi", "psi"])
def test_torsions_are_on_all_sides(torsion: str) -> None:
    angle = dihedral(spread()[0], getattr(molecule(), torsion))
    quarters = torch.histc(angle, 4, min=-math.pi, max=math.pi)
    # Sixteen are expected in each before they relax.
    assert quarters.min() >= 4


def test_weights_are_those_of_openmm_energies_at_a_higher_temperature() -> None:
    positions, log_weights = spread()
    context = openmm.Context(build_system(molecule()), openmm.VerletIntegrator(0.001))
    energies = []
    for one in positions.numpy():
        context.setPositions(one)
        energies.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    expected = -np.array(energies) / (8.314462618e-3 * CONFIG.heat * TEMPERATURE_KELVIN)
    usable = np.isfinite(log_weights)
    np.testing.assert_allclose(log_weights[usable], expected[usable], atol=2e-3)


def test_the_seed_decides() -> None:
    again = spread.__wrapped__(0)
    assert torch.equal(spread()[0], again[0])
    assert not torch.equal(spread()[0], spread(1)[0])
