"""How far weighted samples are from a simulation, in energies and in torsions."""

import numpy as np

from bnce_dist.chem.simulation.reference_frames import Energies, Reference
from bnce_dist.core.metrics import torus_wasserstein_2, wasserstein_2
from bnce_dist.core.random import seed_from
from bnce_dist.core.weights import Weights
from bnce_dist.generator.samples import FloatArray, Samples

# Points of an optimal matching of torsions, whose time grows with their cube.
_MATCHED_POINTS = 2000
# Draws of torsions that distances are averaged over.
_NUM_MATCHINGS = 3


def distances_to_reference(
    samples: Samples, reference: Reference, energies: Energies, seed: int, *, weighted: bool
) -> tuple[float, float]:
    """Return 2-Wasserstein distances of energies [kT] and of torsions [rad] to a simulation.

    Args:
        samples: The evaluated samples; energies count where they are finite.
        reference: Weighted simulation frames, for the torsions.
        energies: Weighted energies of the simulation.
        seed: Of the run; decides the draws of torsions that are matched.
        weighted: Whether the samples have their weights, or all the same.
    """
    log_weights = samples.log_weights if weighted else np.zeros(len(samples.valid))
    torsions = np.stack([samples.phi, samples.psi], 1)
    weights = Weights(log_weights).normalised if weighted else None
    return (
        distance_of_energies(samples, log_weights, energies),
        _torsion_w2(torsions, weights, reference, seed, len(torsions)),
    )


def distance_of_energies(samples: Samples, log_weights: FloatArray, energies: Energies) -> float:
    """Return the 2-Wasserstein distance of energies to those of a simulation [kT].

    Args:
        samples: The evaluated samples; energies count where they are finite.
        log_weights: Of the samples, ``(n,)`` [nats].
        energies: Weighted energies of the simulation.
    """
    finite = np.isfinite(samples.reduced_potential)
    return wasserstein_2(
        samples.reduced_potential[finite],
        energies.reduced_potential,
        Weights(log_weights).normalised[finite],
        np.exp(energies.log_weights - energies.log_weights.max()),
    )


def baseline_distance(reference: Reference, seed: int, num_samples: int) -> float:
    """Return how far two draws of the reference's own torsions are apart [rad].

    Args:
        reference: Weighted simulation frames.
        seed: Of the run; decides the draws.
        num_samples: Of the ensemble whose distance is compared with this one.
    """
    frames = np.stack([reference.phi, reference.psi], 1)
    return _torsion_w2(frames, np.exp(reference.log_weights), reference, seed, num_samples)


def _torsion_w2(
    torsions: FloatArray,
    weights: FloatArray | None,
    reference: Reference,
    seed: int,
    num_samples: int,
) -> float:
    # One draw is a random number; the root of the mean square over several is steadier.
    draws = [
        torus_wasserstein_2(
            torsions,
            np.stack([reference.phi, reference.psi], 1),
            weights,
            np.exp(reference.log_weights),
            num_points=min(_MATCHED_POINTS, num_samples),
            seed=seed_from(seed, "torsion distance", index),
        )
        for index in range(_NUM_MATCHINGS)
    ]
    return float(np.sqrt(np.mean(np.square(draws))))
