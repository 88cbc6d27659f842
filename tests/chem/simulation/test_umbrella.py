"""Umbrella sampling against chains of atoms whose torsional distributions are known."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral, with_torsions
from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.simulation.bias import FlatteningBias, Torsions
from bnce_dist.chem.simulation.reference import estimate_reference
from bnce_dist.chem.simulation.replica_exchange import WindowGrid, Windows, window_centres
from bnce_dist.chem.simulation.rotamer_bias import RotamerBias
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.umbrella import UmbrellaSampler, run_umbrella
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator

PHI, PSI, CHI = (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)
BONDS = ((0, 1), (1, 2), (2, 3), (3, 4))


class ReferenceWithManyExchanges(ReferenceConfig):
    exchange_interval_steps = 20


CONFIG = ReferenceWithManyExchanges(
    num_phi=8,
    num_psi=8,
    phi_stiffness_kj_mol=10.0,
    psi_stiffness_kj_mol=10.0,
    timestep_fs=5.0,
    burn_in_ps=0.5,
    flattening_stages=2,
    flattening_ps=2.0,
    equilibration_ps=1.0,
    production_ps=18.0,
)


def torus_potential(phi, psi):
    """A rare state at 0 < phi < 2 behind a ridge at phi = 0 steeper than the windows [kT]."""
    ridge = 5 * torch.exp(4 * (torch.cos(phi) - 1))
    return ridge - 2 * torch.cos(phi + 1.2) + torch.cos(phi - psi) + torch.cos(2 * psi)


def side_chain_potential(phi, chi):
    """Three wells behind barriers of 9 kT, whose depths depend on phi [kT]."""
    return 4.5 * (1 + torch.cos(3 * chi)) + 1.5 * torch.sin(phi) * torch.cos(chi - 1)


class Chain:
    """Stiff bonds and angles: exactly exp(-V) in the two torsions of five atoms, or three of six.

    Args:
        num_atoms: Five or six.
    """

    temperature_kelvin = 300.0
    kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * temperature_kelvin
    device = torch.device("cpu")

    def __init__(self, num_atoms=5):
        self.num_atoms = num_atoms

    def energy_and_forces_kj_mol(self, positions_nm):
        with torch.enable_grad():
            positions = positions_nm.detach().requires_grad_()
            step = positions[:, 1:] - positions[:, :-1]
            length = step.norm(dim=-1)
            cosine = -(step[:, 1:] * step[:, :-1]).sum(-1) / (length[:, 1:] * length[:, :-1])
            phi = dihedral(positions, PHI)
            torsion = torus_potential(phi, dihedral(positions, PSI))
            if self.num_atoms == 6:
                torsion = torsion + side_chain_potential(phi, dihedral(positions, CHI))
            energy = (
                10_000 * (length - 0.15).square().sum(-1)
                + 200 * (cosine + 0.33).square().sum(-1)
                + self.kt_kj_mol * torsion
            )
            (gradient,) = torch.autograd.grad(energy.sum(), positions)
        return energy.detach(), -gradient


def molecule(num_atoms=5) -> SimpleNamespace:
    zigzag = [[0.12 * i, 0.09 * (i % 2), 0.02 * i * i] for i in range(num_atoms)]
    return SimpleNamespace(
        masses_dalton=np.full(num_atoms, 12.0),
        elements=("C",) * num_atoms,
        atom_names=tuple(f"C{i}" for i in range(num_atoms)),
        bonds=tuple((i, i + 1) for i in range(num_atoms - 1)),
        phi=PHI,
        psi=PSI,
        rotatable_torsions=(CHI,) if num_atoms == 6 else (),
        positions_nm=np.array(zigzag),
    )


def exact_delta_f(num_atoms=5) -> float:
    # The edges of the state, 0 and 2 rad, are edges of cells, so that the sum is exact.
    phi_in, phi_out = torch.linspace(0, 2, 401), torch.linspace(2, 2 * math.pi, 801)
    angle = ((torch.arange(200) + 0.5) * 2 * math.pi / 200).double()

    def integral(edges):
        phi = ((edges[1:] + edges[:-1]) / 2).double()[:, None]
        density = torch.exp(-torus_potential(phi, angle)).mean(1)
        if num_atoms == 6:
            density = density * torch.exp(-side_chain_potential(phi, angle)).mean(1)
        return density.mean() * (edges[-1] - edges[0])

    return -math.log(integral(phi_in) / integral(phi_out))


@pytest.mark.parametrize("num_atoms", [5, 6])
def test_umbrella_sampling_finds_the_free_energy_known_by_quadrature(num_atoms):
    chain = Chain(num_atoms), molecule(num_atoms)
    told: list[tuple[float, float]] = []
    runs = [run_umbrella(*chain, CONFIG, s, lambda *ps: told.append(ps)) for s in (0, 1)]
    assert told[-1] == pytest.approx((CONFIG.total_ps,) * 2)
    reference = estimate_reference(runs)
    assert reference.converged, reference.reason
    assert 0 < reference.stderr_kT < 0.10
    assert reference.delta_f_kT == pytest.approx(
        exact_delta_f(num_atoms), abs=3 * reference.stderr_kT
    )
    for run in runs:
        assert all(0.2 < share < 0.6 for share in run.acceptance)
        occupied = np.sort(run.window, axis=1)
        assert (occupied == np.arange(64)).all()


class ClashingChain(Chain):
    """Side chains drawn into one third of the circle stay inside something else."""

    def energy_and_forces_kj_mol(self, positions_nm):
        energy, forces = super().energy_and_forces_kj_mol(positions_nm)
        return energy + 1e6 * self.are_inside(positions_nm), forces

    def are_inside(self, positions_nm):
        return torch.cos(dihedral(positions_nm, CHI)) < -0.5


def test_chains_that_start_inside_other_atoms_are_drawn_again():
    brief = CONFIG.model_copy(update={"burn_in_ps": 0.005})
    chain = ClashingChain(6)
    sampler = UmbrellaSampler(chain, molecule(6), brief, seed=0)
    sampler.start()
    assert not chain.are_inside(sampler.positions_nm).any()
    drawn = sampler._relaxed_starts(generator(0, "umbrella start"))
    share = chain.are_inside(drawn).float().mean()
    assert 0.1 < share < 0.6, "what it would be without"


def test_run_goes_on_bit_for_bit_from_its_state():
    six_atoms = Chain(6), molecule(6)
    whole = UmbrellaSampler(*six_atoms, CONFIG, seed=3)
    whole.start()
    whole.rotamers = RotamerBias(torch.randn(1, 17, generator=generator(0)).double())
    whole.flattening = FlatteningBias(torch.randn(13, 13, generator=generator(0)).double())
    whole.advance(0.3)
    resumed = UmbrellaSampler(*six_atoms, CONFIG, seed=3)
    resumed.restore({name: np.array(value) for name, value in whole.state().items()})
    first, second = whole.advance(0.5), resumed.advance(0.5)
    for name in ("phi", "psi", "window", "common_bias", "positions_nm"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = UmbrellaSampler(*six_atoms, CONFIG, seed=4)
    other.restore(whole.state())
    assert not np.array_equal(other.advance(0.5).phi, resumed.advance(0.5).phi)


def test_recorded_positions_belong_to_recorded_angles():
    sampler = UmbrellaSampler(Chain(), molecule(), CONFIG, seed=5)
    sampler.start()
    samples = sampler.advance(2.0)
    stride = samples.positions_stride
    assert len(samples.positions_nm) == 2
    for name, quadruple in (("phi", PHI), ("psi", PSI)):
        angle = dihedral(torch.from_numpy(samples.positions_nm), quadruple).numpy()
        recorded = getattr(samples, name)[stride - 1 :: stride]
        np.testing.assert_allclose(np.cos(angle - recorded), 1.0, atol=1e-6)


def test_swaps_sample_the_joint_distribution_of_chains_over_windows():
    # Four chains with fixed angles over a 2 x 2 grid: every arrangement has a known probability.
    stiffness = (1.0, 0.7)
    angles = torch.rand(4, 2, generator=generator(1), dtype=torch.float64) * 6
    centres = torch.cartesian_prod(window_centres(2), window_centres(2))
    bias = (torch.tensor(stiffness) * (1 - torch.cos(angles[:, None] - centres))).sum(-1)
    arrangements = list(itertools.permutations(range(4)))
    log_p = [-sum(bias[chain, window] for window, chain in enumerate(a)) for a in arrangements]
    expected = torch.softmax(torch.tensor(log_p), dim=0).numpy()

    grid, random = WindowGrid(Windows(2, 2, stiffness)), generator(2)
    visits = dict.fromkeys(arrangements, 0)
    num_sweeps = 4_000
    for _ in range(num_sweeps):
        grid.exchange(angles, random)
        visits[tuple(grid.chain_at.flatten().tolist())] += 1
    observed = np.array(list(visits.values())) / num_sweeps
    # Twice the error of independent draws allows for the correlation between sweeps.
    error = 2 * np.sqrt(expected * (1 - expected) / num_sweeps)
    assert (np.abs(observed - expected) < 4 * error).all()
    assert np.abs(expected - 1 / 24).max() > 0.02


def test_forces_of_the_biases_are_minus_their_gradients():
    random = generator(0)
    positions = torch.randn(6, 22, 3, generator=random, dtype=torch.float64, requires_grad=True)
    quadruples = ((4, 6, 8, 14), (6, 8, 14, 16))
    bias = FlatteningBias(torch.randn(7, 7, generator=random, dtype=torch.float64))
    angles = torch.stack([dihedral(positions, quadruple) for quadruple in quadruples], dim=-1)
    # The series written out, independently of the class: sum C_ij h_i(phi) h_j(psi).
    harmonics = [
        torch.stack([torch.ones_like(x)] + [f(m * x) for f in (torch.cos, torch.sin)
                                            for m in (1, 2, 3)])
        for x in angles.unbind(-1)
    ]  # fmt: skip
    energy = torch.einsum("ib,ij,jb->b", harmonics[0], bias.coefficients, harmonics[1])
    (gradient,) = torch.autograd.grad(energy.sum(), positions)

    torsions = Torsions(quadruples)
    found, gradients = torsions.angles_and_gradients(positions.detach())
    torch.testing.assert_close(found, angles.detach())
    forces = torsions.add_forces(torch.zeros_like(gradient), gradients, bias.slopes(found))
    torch.testing.assert_close(forces, -gradient)
    np.testing.assert_allclose(bias.energy(*found.numpy().T), energy.detach().numpy())


def test_flattening_recovers_the_landscape_from_samples_in_windows():
    random = np.random.default_rng(0)
    windows = Windows(8, 8, (12.0, 12.0))
    grid = window_centres(90)
    phi, psi = (x.numpy() for x in torch.cartesian_prod(grid, grid).unbind(1))
    landscape = torus_potential(torch.from_numpy(phi), torch.from_numpy(psi)).numpy()
    density = np.exp(-landscape - windows.reduced_bias(phi, psi))
    cells = [random.choice(len(phi), 400, p=row / row.sum()) for row in density]
    window = np.repeat(np.arange(64), 400)
    drawn = np.concatenate(cells)
    bias = FlatteningBias.none(8).refined(phi[drawn], psi[drawn], window, windows)
    left = bias.energy(phi, psi) + landscape
    assert landscape.std() > 1.5
    assert left.std() < 0.25


def test_starts_have_the_torsions_asked_for_and_the_same_bonds():
    start = torch.tensor(molecule().positions_nm)
    angles = torch.tensor([[0.3, -2.0], [-3.0, 1.0], [3.1, 3.1]], dtype=torch.float64)
    starts = with_torsions(start, BONDS, (PHI, PSI), angles)
    for column, quadruple in enumerate((PHI, PSI)):
        torch.testing.assert_close(dihedral(starts, quadruple), angles[:, column])
    lengths = (starts[:, 1:] - starts[:, :-1]).norm(dim=-1)
    expected = (start[1:] - start[:-1]).norm(dim=-1).expand(3, -1)
    torch.testing.assert_close(lengths, expected)


def test_a_torsion_about_a_ring_bond_is_refused():
    with pytest.raises(InputError, match="ring"):
        with_torsions(
            torch.tensor(molecule().positions_nm), (*BONDS, (4, 0)), (PHI,), torch.zeros(1, 1)
        )
