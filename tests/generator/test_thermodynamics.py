"""Free energy, energy and entropy of one harmonic well against another, by closed forms."""

import math

import numpy as np
import pytest

from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.generator.metrics import EvaluateConfig
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.thermodynamics import thermodynamics

NUM_SAMPLES = 40_000
DEPTH_KJ_MOL = 6.0
STIFFNESS_IN, STIFFNESS_OUT = 400.0, 100.0
CONFIG = EvaluateConfig(num_samples=NUM_SAMPLES, num_exact=NUM_SAMPLES, num_bootstrap=100)


def two_wells(temperature_kelvin: float, *, in_state_share: float = 0.5) -> Samples:
    """Draw from wells of the wrong width, and leave it to the weights to correct that."""
    kt = BOLTZMANN_KJ_MOL_KELVIN * temperature_kelvin
    rng = np.random.default_rng(0)
    in_state = np.arange(NUM_SAMPLES) < round(in_state_share * NUM_SAMPLES)
    rng.shuffle(in_state)
    stiffness = np.where(in_state, STIFFNESS_IN, STIFFNESS_OUT)
    scale = 1.2 * np.sqrt(kt / stiffness)
    x = scale * rng.standard_normal(NUM_SAMPLES)
    share = np.where(in_state, in_state_share, 1 - in_state_share)
    log_density = np.log(share / scale) - 0.5 * np.square(x / scale) - 0.5 * math.log(2 * math.pi)
    every, angles = np.ones(NUM_SAMPLES, dtype=bool), np.zeros(NUM_SAMPLES)
    return Samples(
        reduced_potential=(np.where(in_state, DEPTH_KJ_MOL, 0.0) + 0.5 * stiffness * x**2) / kt,
        log_density=log_density,
        log_density_exact=log_density,
        num_random=NUM_SAMPLES,
        phi=angles,
        psi=angles,
        in_state=in_state,
        valid=every,
        native_chirality=every,
        mirrored=~every,
        inverted=~every,
        cpu_seconds=angles + 1e-5,
        cpu_seconds_exact=angles + 1e-2,
    )


@pytest.mark.parametrize("temperature_kelvin", [250.0, 400.0])
def test_free_energy_energy_and_entropy(temperature_kelvin: float) -> None:
    found = thermodynamics(two_wells(temperature_kelvin), temperature_kelvin, CONFIG, seed=0)
    # The narrower well has the smaller entropy; equipartition gives both the same mean energy.
    entropy = -0.5 * BOLTZMANN_KJ_MOL_KELVIN * math.log(STIFFNESS_IN / STIFFNESS_OUT) * 1000
    free_energy = DEPTH_KJ_MOL - temperature_kelvin * entropy / 1000
    for name, expected, stderr in (
        ("delta_u_kj_mol", DEPTH_KJ_MOL, "delta_u_stderr_kj_mol"),
        ("delta_s_j_mol_kelvin", entropy, "delta_s_stderr_j_mol_kelvin"),
        ("delta_f_kj_mol", free_energy, "delta_f_stderr_kj_mol"),
    ):
        assert abs(found[name] - expected) < 4 * found[stderr], name
        assert 0 < found[stderr] < 0.2
    assert found["delta_f_kT"] * BOLTZMANN_KJ_MOL_KELVIN * temperature_kelvin == pytest.approx(
        found["delta_f_kj_mol"]
    )
    assert found["reliable"]


def test_out_of_reach_there_is_no_number() -> None:
    samples = two_wells(300.0, in_state_share=20 / NUM_SAMPLES)
    found = thermodynamics(samples, 300.0, CONFIG, seed=0)
    samples.reduced_potential[samples.in_state] += np.linspace(0, 60, 20)
    lost = thermodynamics(samples, 300.0, CONFIG, seed=0)
    assert found["delta_f_kT"] is not None
    assert lost["delta_f_kT"] is None
    assert lost["delta_s_j_mol_kelvin"] is None
    assert not lost["reliable"]


def test_out_of_reach_is_also_a_side_without_samples() -> None:
    found = thermodynamics(two_wells(400.0, in_state_share=0.0), 400.0, CONFIG, seed=0)
    assert found["delta_f_kT"] is None
    assert not found["reliable"]
    assert "both sides" in found["verdict"]["reasons"][0]
