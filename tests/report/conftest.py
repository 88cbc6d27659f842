"""A run with known answers: a wrapped-normal mixture with the basins of alanine dipeptide."""

from dataclasses import dataclass

import numpy as np
import pytest

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.report.results import Array, RunResults


@dataclass(frozen=True, eq=False)
class TorusMixture:
    """Products of wrapped normals in phi and psi.

    Args:
        weights: Of the components, summing to 1.
        means: ``(components, 2)`` [degrees].
        scales: Standard deviations, ``(components, 2)`` [degrees].
    """

    weights: Array
    means: Array
    scales: Array

    def sample(self, num_samples: int, rng: np.random.Generator) -> Array:
        component = rng.choice(len(self.weights), num_samples, p=self.weights)
        noise = rng.standard_normal((num_samples, 2))
        angles = np.radians(self.means[component] + self.scales[component] * noise)
        return np.pi - (np.pi - angles) % (2 * np.pi)

    def log_density(self, angles: Array) -> Array:
        """Return the joint log density, ``(samples,)`` [nats]."""
        return np.log(self._components(angles).prod(-1) @ self.weights)

    def log_density_phi(self, phi: Array) -> Array:
        """Return the marginal log density of phi, ``(samples,)`` [nats]."""
        return np.log(self._components(np.stack([phi, phi], -1))[..., 0] @ self.weights)

    def _components(self, angles: Array) -> Array:
        turns = 2 * np.pi * np.arange(-2, 3)
        scales = np.radians(self.scales)
        away = angles[:, None, :, None] - np.radians(self.means)[None, :, :, None] + turns
        densities = np.exp(-0.5 * (away / scales[..., None]) ** 2).sum(-1)
        return densities / (scales * np.sqrt(2 * np.pi))


TARGET = TorusMixture(
    weights=np.array([0.30, 0.33, 0.33, 0.0145, 0.025, 0.0005]),
    means=np.array([[-150, 155], [-72, 148], [-75, -18], [-120, 40], [54, 38], [60, -130]]),
    scales=np.array([[16, 18], [15, 20], [14, 17], [30, 40], [9, 13], [12, 18]]),
)
EMULATOR = TorusMixture(
    weights=np.array([0.23, 0.25, 0.25, 0.05, 0.21, 0.01]),
    means=TARGET.means,
    scales=TARGET.scales * 1.06,
)


@pytest.fixture(scope="session")
def target() -> TorusMixture:
    return TARGET


@pytest.fixture(scope="session")
def run() -> RunResults:
    return synthetic_run()


def synthetic_run(num_samples: int = 10_000, seed: int = 0) -> RunResults:
    """Return a run whose reweighted samples follow TARGET."""
    rng = np.random.default_rng(seed)
    samples = EMULATOR.sample(num_samples, rng)
    stiff = 0.5 * rng.chisquare(57, num_samples)
    widened = 1.03 * stiff + rng.exponential(0.4, num_samples)
    log_exact = EMULATOR.log_density(samples) + 45 + 0.06 * (stiff - 28.5)
    log_weights = TARGET.log_density(samples) - EMULATOR.log_density(samples)
    log_weights += 0.35 * rng.standard_t(12, num_samples) - 0.45 * (widened - stiff - 1.2)
    # Like umbrella sampling: half of the frames cover the torus evenly.
    everywhere = rng.uniform(-np.pi, np.pi, (15_000, 2))
    reference = rng.permutation(np.concatenate([TARGET.sample(15_000, rng), everywhere]))
    log_target = TARGET.log_density(reference)
    log_proposal = np.logaddexp(log_target, -2 * np.log(2 * np.pi))
    learned = log_exact + 0.42 * rng.standard_normal(num_samples) + 0.05
    inside = (samples[:, 0] > 0) & (samples[:, 0] < 2)
    share = np.exp(log_weights)[inside].sum() / np.exp(log_weights).sum()
    frames = Reference(
        {},
        phi=reference[:, 0],
        psi=reference[:, 1],
        log_weights=log_target - log_proposal,
        replica=np.repeat(np.arange(10), 3_000),
        reduced_potential=0.5 * rng.chisquare(57, 20_000) - 56.0,
        potential_log_weights=np.zeros(20_000),
    )
    return RunResults(
        phi=samples[:, 0],
        psi=samples[:, 1],
        log_weights=log_weights,
        tails={
            name: (log_weights[side], np.ones(int(side.sum())))
            for name, side in (("State", inside), ("Rest", ~inside))
        },
        reduced_potential=widened - 56.0,
        reference=frames,
        simulated=frames.energies,
        losses={"emulator": _losses(rng, 6_000, 1), "energy": _losses(rng, 4_000, 3)},
        log_density_exact=log_exact[:1_500],
        log_density_learned=learned[:1_500],
        delta_f_kT=float(np.log((1 - share) / share)),
        delta_f_stderr_kT=0.06,
        delta_f_reference_kT=3.66,
        delta_f_reference_stderr_kT=0.03,
        temperatures=[_at_temperature(kelvin) for kelvin in (280.0, 300.0, 350.0)],
    )


def _at_temperature(temperature_kelvin: float) -> dict[str, float]:
    """Return a state 6 kJ/mol above the rest, with an entropy smaller by 11 J/mol/K."""
    free_energy = 6.0 + 0.011 * temperature_kelvin
    return {
        "temperature_kelvin": temperature_kelvin,
        "delta_f_kT": free_energy / (0.00831446 * temperature_kelvin),
        "delta_f_kj_mol": free_energy,
        "delta_f_stderr_kj_mol": 0.1,
        "delta_u_kj_mol": 6.0,
        "delta_u_stderr_kj_mol": 0.4,
        "delta_s_j_mol_kelvin": -11.0,
        "delta_s_stderr_j_mol_kelvin": 1.4,
    }


def _losses(rng: np.random.Generator, num_steps: int, num_terms: int) -> dict[str, Array]:
    step = np.arange(20, num_steps + 1, 20).astype(float)
    noise = rng.standard_normal((3, len(step)))
    score = (0.55 + 3 * np.exp(-step / 300)) * np.exp(0.08 * noise[0])
    infonce = 2.2 + 2.6 * np.exp(-step / 400) + 0.05 * noise[1]
    terms = {"loss": score + 2 * infonce, "score": score, "infonce": infonce}
    if num_terms == 1:
        terms = {"loss": score}
    return {"step": step, **terms}
