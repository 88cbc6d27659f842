"""The reference estimator against quadrature, and its refusals."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from pymbar import mbar_solvers
from scipy import stats

from bnce_dist.chem.simulation.bias import FlatteningBias
from bnce_dist.chem.simulation.mbar import unbiased_log_weights, window_free_energies
from bnce_dist.chem.simulation.reference import (
    ReferenceFreeEnergy,
    agreement_p_value,
    estimate_reference,
    halves_p_value,
    standard_error,
    trend_p_value,
)
from bnce_dist.chem.simulation.replica_exchange import Windows
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.umbrella import WindowFrames
from bnce_dist.chem.state import State
from bnce_dist.core.condition import parse_condition
from bnce_dist.core.errors import InputError

WINDOWS = ReferenceConfig(
    num_phi=6, num_psi=6, phi_stiffness_kj_mol=8.0, psi_stiffness_kj_mol=8.0
).windows(temperature_kelvin=300.0)
CELLS = 120
GRID = (np.arange(CELLS) + 0.5) * 2 * np.pi / CELLS - np.pi
PHI, PSI = (angle.ravel() for angle in np.meshgrid(GRID, GRID, indexing="ij"))
# The state is bounded by cell edges nearest to (0, 2) rad, so that quadrature is exact.
STATE = (0.0, 38 * 2 * np.pi / CELLS)
IN_STATE = np.abs(PHI - STATE[1] / 2) < STATE[1] / 2


def landscape(depth: float) -> np.ndarray:
    """A free energy of (phi, psi), flat within each cell [kT]."""
    return -2 * np.cos(PHI + 1) - depth * np.cos(PHI - 1) * (1 + np.sin(PSI)) + np.cos(2 * PSI)


def delta_f(energy: np.ndarray) -> float:
    weights = np.exp(-energy)
    return float(-np.log(weights[IN_STATE].sum() / weights[~IN_STATE].sum()))


def simulate(seed: int, depths: np.ndarray, flattening: FlatteningBias | None = None):
    """Draw exactly from every window, one frame per depth of the landscape."""
    random = np.random.default_rng(seed)
    common = np.zeros(len(PHI)) if flattening is None else flattening.energy(PHI, PSI)
    bias = WINDOWS.reduced_bias(PHI, PSI)
    cells = np.empty((len(depths), len(WINDOWS)), dtype=int)
    for depth in np.unique(depths):
        density = np.exp(-landscape(depth) - common - bias)
        rows = depths == depth
        for window, row in enumerate(density):
            cells[rows, window] = random.choice(len(PHI), rows.sum(), p=row / row.sum())
    jitter = random.uniform(-0.5, 0.5, (2, *cells.shape)) * 2 * np.pi / CELLS
    return WindowFrames(
        windows=WINDOWS,
        phi=(PHI[cells] + jitter[0]).astype(np.float32),
        psi=(PSI[cells] + jitter[1]).astype(np.float32),
        window=np.broadcast_to(np.arange(len(WINDOWS), dtype=np.int16), cells.shape),
        common_bias=common[cells].astype(np.float32),
    )


def estimate(*runs: WindowFrames, **options) -> ReferenceFreeEnergy:
    return estimate_reference(runs, state=State.from_interval(*STATE), **options)


@functools.cache
def equilibrated() -> ReferenceFreeEnergy:
    return estimate(*(simulate(seed, np.full(400, 0.5)) for seed in (0, 1)))


def test_equilibrated_runs_give_the_free_energy_of_quadrature_and_converge():
    reference = equilibrated()
    assert reference.converged, reference.reason
    assert 0.005 < reference.stderr_kT < 0.06
    exact = delta_f(landscape(0.5))
    assert reference.delta_f_kT == pytest.approx(exact, abs=3 * reference.stderr_kT)
    np.testing.assert_allclose(
        reference.block_delta_f_kT, exact, atol=4.5 * reference.stderr_kT * np.sqrt(10)
    )


def test_a_state_of_both_torsions_has_the_free_energy_of_quadrature():
    cell = 2 * np.pi / CELLS
    text = f"phi in [{-30 * cell}, {38 * cell}] and not psi in [{25 * cell}, {-35 * cell}]"
    inside = (-30 * cell < PHI) & (38 * cell > PHI) & (-35 * cell < PSI) & (25 * cell > PSI)
    weights = np.exp(-landscape(0.5))
    exact = np.log(weights[~inside].sum() / weights[inside].sum())
    state = State(parse_condition(text), frozenset({"phi"}), text)
    runs = [simulate(seed, np.full(200, 0.5)) for seed in (0, 1)]
    reference = estimate_reference(runs, state=state)
    assert reference.stderr_kT < 0.1
    assert reference.delta_f_kT == pytest.approx(exact, abs=3 * reference.stderr_kT)
    assert abs(reference.delta_f_kT - delta_f(landscape(0.5))) > 5 * reference.stderr_kT


def test_weighted_frames_have_the_distribution_of_quadrature():
    reference = equilibrated()
    weight = np.exp(-landscape(0.5)).reshape(CELLS, CELLS).sum(axis=1)
    exact = weight.reshape(24, -1).sum(axis=1)
    counted, _ = np.histogram(
        reference.phi, 24, range=(-np.pi, np.pi), weights=np.exp(reference.log_weights)
    )
    profile, expected = -np.log(counted), -np.log(exact / exact.sum())
    likely = expected < 6
    assert likely.sum() > 8
    np.testing.assert_allclose(profile[likely], expected[likely], atol=0.25)


def test_log_weights_are_normalised_and_name_the_replica():
    reference = equilibrated()
    assert np.exp(reference.log_weights).sum() == pytest.approx(1.0)
    for replica in (0, 1):
        share = np.exp(reference.log_weights[reference.replica == replica]).sum()
        assert share == pytest.approx(0.5)


def test_window_free_energies_are_those_of_quadrature():
    run = simulate(3, np.full(400, 0.5))
    free_energies = window_free_energies(
        run.phi.ravel(), run.psi.ravel(), run.window.ravel(), WINDOWS
    )
    density = np.exp(-landscape(0.5) - WINDOWS.reduced_bias(PHI, PSI)).sum(axis=1)
    exact = -np.log(density / density[0])
    assert exact.std() > 1
    np.testing.assert_allclose(free_energies, exact, atol=0.25)
    assert np.abs(free_energies - exact).mean() < 0.1


def test_windows_on_level_ground_are_solved_in_few_passes(monkeypatch: pytest.MonkeyPatch):
    passes = []
    gradient = mbar_solvers.mbar_gradient
    monkeypatch.setattr(
        mbar_solvers, "mbar_gradient", lambda *args: passes.append(1) or gradient(*args)
    )
    random = np.random.default_rng(0)
    window = np.repeat(np.arange(len(WINDOWS)), 400)
    phi, psi = random.vonmises(
        WINDOWS.centres()[window].T, np.array(WINDOWS.reduced_stiffness)[:, None]
    )
    free_energies = window_free_energies(phi, psi, window, WINDOWS)
    np.testing.assert_allclose(free_energies, 0, atol=0.1)
    # Each iteration takes two; free energies near zero have large relative rounding errors.
    assert len(passes) <= 16


def test_the_common_bias_is_taken_out_again():
    coefficients = np.zeros((5, 5))
    coefficients[1, 0], coefficients[3, 1] = -2.0, 1.0
    run = simulate(4, np.full(600, 0.5), FlatteningBias(coefficients))
    exact = delta_f(landscape(0.5))
    reference = estimate(run)
    assert reference.delta_f_kT == pytest.approx(exact, abs=3 * reference.stderr_kT)
    # Left in, it would matter.
    free_energies = window_free_energies(
        run.phi.ravel(), run.psi.ravel(), run.window.ravel(), WINDOWS
    )
    weights = np.exp(unbiased_log_weights(
        run.phi.ravel(), run.psi.ravel(), np.zeros(run.phi.size), free_energies, WINDOWS
    ))  # fmt: skip
    inside = weights[(run.phi.ravel() > STATE[0]) & (run.phi.ravel() < STATE[1])].sum()
    assert abs(-np.log(inside / (1 - inside)) - exact) > 0.3


def test_a_run_that_still_equilibrates_is_not_converged():
    depths = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 80)
    assert delta_f(landscape(0.1)) - delta_f(landscape(0.5)) > 0.4
    reference = estimate(*(simulate(seed, depths) for seed in (0, 1)))
    assert not reference.converged
    assert "trend" in reference.reason


def test_runs_that_sample_different_basins_are_not_converged():
    reference = estimate(simulate(0, np.full(200, 0.3)), simulate(1, np.full(200, 0.6)))
    assert not reference.converged
    assert "disagree" in reference.reason


def test_a_noisy_estimate_is_not_converged():
    reference = estimate(simulate(0, np.full(20, 0.5)), max_stderr_kT=0.01)
    assert not reference.converged
    assert "standard error" in reference.reason


@pytest.mark.filterwarnings("error")
def test_blocks_that_never_met_the_state_leave_no_number_and_no_warning():
    run = simulate(0, np.full(20, 0.5))
    outside = replace(run, phi=-np.abs(run.phi))
    reference = estimate(run, outside)
    assert not reference.converged
    assert not np.isfinite(reference.stderr_kT)


def test_runs_of_different_windows_are_refused():
    other = replace(simulate(1, np.full(10, 0.5)), windows=Windows(6, 8, (3.2, 3.2)))
    with pytest.raises(InputError, match="windows"):
        estimate(simulate(0, np.full(10, 0.5)), other)
    with pytest.raises(InputError, match="num_blocks"):
        estimate(simulate(0, np.full(3, 0.5)), num_blocks=5)


def test_the_estimate_of_all_lies_among_those_of_the_replicas():
    reference = equilibrated()
    assert reference.replica_delta_f_kT.min() <= reference.delta_f_kT
    assert reference.delta_f_kT <= reference.replica_delta_f_kT.max()


def test_replicas_stuck_apart_widen_the_error_and_a_drift_is_seen():
    random = np.random.default_rng(1)
    stuck, drifting, covered = 0, 0, []
    for _ in range(400):
        blocks = 0.1 * random.standard_normal((4, 5))
        offsets = 0.1 * random.standard_normal((4, 1))
        stderr, freedom = standard_error(blocks + offsets, (blocks + offsets).mean(1))
        covered.append(abs((blocks + offsets).mean()) < stats.t.ppf(0.975, freedom) * stderr)
        stuck += agreement_p_value(blocks + 2 * offsets) > 0.02
        drifting += halves_p_value(blocks + 0.3 * np.linspace(0.5, -0.5, 5)) > 0.02
    assert np.mean(covered) > 0.88
    assert stuck / 400 < 0.2
    assert drifting / 400 < 0.2


@pytest.mark.parametrize("p_value", [trend_p_value, halves_p_value, agreement_p_value])
def test_p_values_are_uniform_without_an_effect(p_value):
    random = np.random.default_rng(0)
    values = [p_value(random.normal(size=(4, 6))) for _ in range(1_500)]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
