"""Training data from biased starts, and the relabelling of equivalent hydrogens."""

import functools

import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral, signed_volume, with_torsions
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.simulation.langevin import relax
from bnce_dist.chem.simulation.settings import DatasetConfig
from bnce_dist.chem.simulation.training_data import (
    draw_start_frames,
    make_training_data,
    permute_equivalent_hydrogens,
)
from bnce_dist.chem.state import POSITIVE_PHI
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator

CONFIG = DatasetConfig(
    num_chains=40, num_tasks=1, frames_per_chain=4, frame_interval_ps=0.1, equilibration_ps=0.2
)


@functools.cache
def alanine_dipeptide() -> tuple[Molecule, ForceField]:
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    force_field = ForceField.from_system(build_system(molecule), 300.0, dtype=torch.float32)
    return molecule, force_field


@functools.cache
def umbrella_frames() -> np.ndarray:
    """Two relaxed structures in the state and two outside."""
    molecule, force_field = alanine_dipeptide()
    angles = torch.tensor([[1.0, 0.6], [1.1, -1.0], [-1.4, 1.2], [-1.3, 2.6]])
    starts = with_torsions(
        torch.tensor(molecule.positions_nm, dtype=torch.float32), molecule.bonds,
        (molecule.phi, molecule.psi), angles,
    )  # fmt: skip
    forces = lambda x: force_field.energy_and_forces_kj_mol(x)[1]  # noqa: E731
    return relax(forces, starts, 200).numpy()


def make(seed: int = 0):
    molecule, force_field = alanine_dipeptide()
    log_weights = np.array([-5.0, -6.0, -1.0, -1.5])
    return make_training_data(
        force_field, molecule, umbrella_frames(), log_weights, CONFIG, POSITIVE_PHI, seed
    )


def test_frames_are_enriched_named_by_their_torsions_and_of_the_same_handedness():
    molecule, _ = alanine_dipeptide()
    frames = make()
    assert frames.positions_nm.shape == (160, 22, 3)
    assert frames.positions_nm.dtype == np.float32
    positions = torch.from_numpy(frames.positions_nm)
    for angle, quadruple in ((frames.phi, molecule.phi), (frames.psi, molecule.psi)):
        np.testing.assert_array_equal(angle, dihedral(positions, quadruple).numpy())
    in_state = (frames.phi > 0) & (frames.phi < 2)
    assert in_state.mean() == pytest.approx(0.25, abs=0.05)
    for centre in molecule.chirality_centres:
        assert (signed_volume(positions, centre) > 0).all()


def test_frames_depend_on_the_seed_alone():
    np.testing.assert_array_equal(make(0).positions_nm, make(0).positions_nm)
    assert not np.array_equal(make(0).positions_nm, make(1).positions_nm)


def test_starts_follow_the_weights_within_the_state_and_within_the_rest():
    random = np.random.default_rng(0)
    phi = random.uniform(-3, 3, 50)
    log_weights = random.normal(size=50) - 100
    config = DatasetConfig(num_chains=80_000, num_tasks=2, state_fraction=0.3)
    in_state = (phi > 0) & (phi < 2)
    drawn = draw_start_frames(in_state, log_weights, config, generator(0)).numpy()
    assert len(drawn) == 40_000
    assert in_state[drawn].mean() == pytest.approx(0.3)
    for member, share in ((in_state, 0.3), (~in_state, 0.7)):
        weights = np.where(member, np.exp(log_weights + 100), 0)
        expected = share * weights / weights.sum()
        found = np.bincount(drawn, minlength=50) / len(drawn)
        error = np.sqrt(expected / len(drawn)) + 1e-9
        assert (np.abs(found - expected)[member] < 4.5 * error[member]).all()


def test_no_start_on_one_side_is_refused():
    with pytest.raises(InputError, match="one side empty"):
        draw_start_frames(np.zeros(2, dtype=bool), np.zeros(2), CONFIG, generator(0))
    outside = DatasetConfig(num_chains=4, num_tasks=1, state_fraction=0.01)
    drawn = draw_start_frames(np.zeros(2, dtype=bool), np.zeros(2), outside, generator(0))
    assert len(drawn) == 4


def test_relabelled_hydrogens_keep_energy_and_handedness_and_take_every_cyclic_order():
    molecule, force_field = alanine_dipeptide()
    positions = torch.from_numpy(umbrella_frames()).repeat(30, 1, 1)
    permuted = permute_equivalent_hydrogens(positions, molecule, generator(0))
    double = force_field.astype(torch.float64)
    torch.testing.assert_close(
        double.reduced_potential(permuted.double()), double.reduced_potential(positions.double()),
        rtol=0, atol=1e-6,
    )  # fmt: skip
    assert len(molecule.equivalent_hydrogens) == 3
    hydrogens = sorted(sum(molecule.equivalent_hydrogens, ()))
    others = [atom for atom in range(22) if atom not in hydrogens]
    assert torch.equal(permuted[:, others], positions[:, others])
    for group in molecule.equivalent_hydrogens:
        bearer = next((set(bond) - {group[0]}).pop() for bond in molecule.bonds if group[0] in bond)
        before, after = (signed_volume(x, (bearer, *group)) for x in (positions, permuted))
        torch.testing.assert_close(before, after)
        members = list(group)
        shifts = {
            tuple((frame[:, None] == old[None]).all(-1).int().argmax(1).tolist())
            for frame, old in zip(permuted[:, members], positions[:, members], strict=True)
        }
        assert shifts == {(0, 1, 2), (1, 2, 0), (2, 0, 1)}


def test_chains_dealt_to_many_tasks_still_start_on_both_sides() -> None:
    for num_tasks in (1, 2, 128):
        DatasetConfig(num_chains=512, num_tasks=num_tasks).require_both_sides()
    with pytest.raises(InputError, match="got 0 of the 2 of a task in the state; lower"):
        DatasetConfig(num_chains=512, num_tasks=256).require_both_sides()
    DatasetConfig(num_chains=2, num_tasks=2).require_both_sides()
