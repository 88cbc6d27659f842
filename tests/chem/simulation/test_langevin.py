"""Langevin dynamics against the closed forms of statistical mechanics."""

import numpy as np
import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN, ForceField, build_system
from bnce_dist.chem.simulation.langevin import (
    Langevin,
    LangevinSettings,
    relax,
    repartitioned_masses,
)
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator

KT = BOLTZMANN_KJ_MOL_KELVIN * 300.0


def _harmonic(stiffness: float):
    return lambda positions: -stiffness * positions


def _sample_harmonic(stiffness: float, mass: float, timestep_fs: float, seed: int = 0):
    """Positions and velocities of 4,000 oscillators of three dimensions, at ten times."""
    settings = LangevinSettings(300.0, timestep_fs, friction_per_ps=20.0)
    dynamics = Langevin(_harmonic(stiffness), np.array([mass]), settings)
    random = generator(seed, "harmonic")
    positions = torch.zeros(4_000, 1, 3)
    velocities = dynamics.thermal_velocities(positions, random)
    kept = []
    for _ in range(10):
        positions, velocities = dynamics.run(positions, velocities, 60, random)
        kept.append((positions, velocities))
    positions, velocities = (torch.stack(part).double() for part in zip(*kept[2:], strict=True))
    return positions, velocities


def test_harmonic_positions_and_velocities_have_their_closed_form_variances():
    # omega dt = 1: a step so long that a scheme of lower order is visibly off.
    stiffness, mass, timestep_fs = 12_000.0, 12.0, 31.6227766
    positions, velocities = _sample_harmonic(stiffness, mass, timestep_fs)
    # BAOAB samples harmonic positions exactly at any step; velocities cool by (omega dt)^2 / 4.
    relative_error = 3 * np.sqrt(2 / positions.numel())
    assert positions.square().mean() * stiffness / KT == pytest.approx(1.0, abs=relative_error)
    assert velocities.square().mean() * mass / KT == pytest.approx(0.75, abs=relative_error)


def test_target_does_not_depend_on_masses():
    light, _ = _sample_harmonic(12_000.0, 6.0, 10.0)
    heavy, _ = _sample_harmonic(12_000.0, 24.0, 10.0, seed=1)
    assert (light.var() / heavy.var()).item() == pytest.approx(1.0, abs=0.015)


def test_thermal_velocities_have_the_maxwell_boltzmann_variance_of_each_atom():
    masses = np.array([1.0, 16.0])
    dynamics = Langevin(_harmonic(1.0), masses, LangevinSettings(300.0, 2.0))
    velocities = dynamics.thermal_velocities(torch.zeros(50_000, 2, 3), generator(0))
    temperature = velocities.double().square().mean(dim=(0, 2)).numpy() * masses / KT
    np.testing.assert_allclose(temperature, 1.0, atol=0.02)


def test_same_generator_same_chains_and_arguments_untouched():
    dynamics = Langevin(_harmonic(1e4), np.array([12.0]), LangevinSettings(300.0, 2.0))
    start, rest = torch.ones(8, 1, 3), torch.zeros(8, 1, 3)
    first = dynamics.run(start, rest, 50, generator(1))
    again = dynamics.run(start, rest, 50, generator(1))
    other = dynamics.run(start, rest, 50, generator(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(start, torch.ones(8, 1, 3))
    assert torch.equal(rest, torch.zeros(8, 1, 3))


def test_a_run_that_explodes_says_so():
    dynamics = Langevin(_harmonic(1e8), np.array([1.0]), LangevinSettings(300.0, timestep_fs=10.0))
    start = torch.zeros(4, 1, 3)
    start[2] = 1.0
    with pytest.raises(InputError, match=r"1 of 4 chains not finite \(\[2\]\).*timestep_fs"):
        dynamics_without_noise(dynamics).run(start, torch.zeros(4, 1, 3), 2_000, generator(0))


def dynamics_without_noise(dynamics: Langevin) -> Langevin:
    dynamics.masses = dynamics.masses.clone()
    dynamics._thermal_speed = lambda like: torch.zeros_like(dynamics.masses).to(like)
    return dynamics


@pytest.mark.parametrize("name", ["temperature_kelvin", "timestep_fs", "friction_per_ps"])
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_settings_must_be_positive(name, value):
    with pytest.raises(InputError, match=name):
        LangevinSettings(**{"temperature_kelvin": 300.0, "timestep_fs": 2.0} | {name: value})


def test_hydrogen_mass_is_taken_from_the_neighbour():
    # Methane with a hydroxyl: C H3 O H.
    elements = ["C", "H", "H", "H", "O", "H"]
    bonds = [(0, 1), (2, 0), (0, 3), (0, 4), (4, 5)]
    masses = np.array([12.0, 1.0, 1.0, 1.0, 16.0, 1.0])
    repartitioned = repartitioned_masses(masses, elements, bonds, 3.0)
    np.testing.assert_allclose(repartitioned, [6.0, 3.0, 3.0, 3.0, 14.0, 3.0])
    with pytest.raises(InputError, match="hydrogen_mass_dalton"):
        repartitioned_masses(masses, elements, bonds, 6.0)


def test_relax_parts_a_clash_with_bounded_steps_and_ends_at_the_minimum():
    start = torch.tensor([[[10.0, 0.0, 0.0]], [[0.001, 0.0, 0.0]]])
    one_step = relax(_harmonic(1e5), start, num_steps=1)
    assert (start - one_step).abs().max().item() == pytest.approx(0.002, rel=1e-3)
    near = relax(_harmonic(1e5), start[1:], num_steps=200)
    assert near.abs().max() < 1e-9


def test_the_stiffest_bonds_of_alanine_dipeptide_are_at_the_bath_temperature():
    r"""Integration by parts, :math:`-\langle v \cdot F \rangle = k_B T \langle \nabla \cdot v
    \rangle`, with v moving one hydrogen along its bond by its stretch (r - r0).

    Unlike the virial of all coordinates, whose standard deviation is three times its mean, this
    sees errors of the time step at the per cent level where they are largest.
    """
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    force_field = ForceField.from_system(build_system(molecule), 300.0, dtype=torch.float32)
    settings = LangevinSettings(300.0, 2.0, friction_per_ps=5.0)
    masses = repartitioned_masses(
        molecule.masses_dalton, molecule.elements, molecule.bonds, settings.hydrogen_mass_dalton
    )
    assert masses.sum() == pytest.approx(molecule.masses_dalton.sum())
    dynamics = Langevin(lambda x: force_field.energy_and_forces_kj_mol(x)[1], masses, settings)
    random = generator(0, "equipartition")
    positions = torch.tensor(molecule.positions_nm, dtype=torch.float32).repeat(256, 1, 1)
    velocities = dynamics.thermal_velocities(positions, random)
    positions, velocities = dynamics.run(positions, velocities, 500, random)

    bonds = torch.tensor([
        bond if molecule.elements[bond[0]] == "H" else bond[::-1]
        for bond in molecule.bonds
        if "H" in (molecule.elements[bond[0]], molecule.elements[bond[1]])
    ])  # fmt: skip
    assert len(bonds) == 12
    work, divergence = [], []
    for _ in range(8):
        positions, velocities = dynamics.run(positions, velocities, 50, random)
        arm = (positions[:, bonds[:, 0]] - positions[:, bonds[:, 1]]).double()
        length = arm.norm(dim=-1)
        stretch = length - length.mean(dim=0)
        force = (dynamics.forces(positions)[:, bonds[:, 0]] * arm).sum(-1) / length
        work.append(-stretch * force)
        divergence.append(1 + 2 * stretch / length)
    work, divergence = torch.stack(work), torch.stack(divergence)
    temperature = (work.mean() / divergence.mean() / KT).item()
    error = (work.mean(-1).std() / KT / work.mean(-1).numel() ** 0.5).item()
    assert error < 0.012
    assert temperature == pytest.approx(1.0, abs=4 * error)
