"""Held-out samples of an emulator with everything that is known of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.free_energy import stratified_log_weights
from bnce_dist.generator.evaluation import molecule_log_weights

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Held-out emulator samples, annealed or not; some of them have an exact likelihood.

    Args:
        reduced_potential: Where the samples are, ``(n,)`` [kT]; infinite where that is no molecule.
        log_density: Learned log density where they were drawn, ``(n,)`` [nats].
        log_density_exact: Exact one, ``(n,)``; NaN where it was not computed [nats].
        num_random: How many of the first samples have one whatever they weigh.
        phi: First backbone torsion, ``(n,)`` [rad].
        psi: The one after it, ``(n,)`` [rad].
        in_state: Whether they are in the state, ``(n,)`` bool.
        valid: Whether the sample was drawn as the code of a molecule, ``(n,)`` bool.
        native_chirality: Whether every centre is as in the molecule, ``(n,)`` bool.
        mirrored: Whether the sample was the mirror image and was inverted, ``(n,)`` bool.
        inverted: Whether the sampler turned space inside out there, ``(n,)`` bool, false where the
            exact density was not computed; None if nobody looked.
        cpu_seconds: Of the learned log density, per sample, ``(n,)`` [s].
        cpu_seconds_exact: Of the exact one, where it was computed [s].
        inclusion: Probability that each had of getting an exact density, ``(n,)``; absent where
            those beside the first are the heaviest, as versions before chose them.
        log_weights_annealed: By the learned density and the way from it, ``(n,)`` [nats]; absent
            if the samples were not annealed.
    """

    reduced_potential: FloatArray
    log_density: FloatArray
    log_density_exact: FloatArray
    num_random: int
    phi: FloatArray
    psi: FloatArray
    in_state: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    native_chirality: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]
    inverted: NDArray[np.bool_] | None
    cpu_seconds: FloatArray
    cpu_seconds_exact: FloatArray
    inclusion: FloatArray | None = None
    log_weights_annealed: FloatArray | None = None

    @classmethod
    def from_arrays(
        cls,
        evaluated: Mapping[str, np.ndarray],
        exact: Mapping[str, np.ndarray],
        in_state: NDArray[np.bool_],
    ) -> "Samples":
        """Join the data sets of samples as they were drawn.

        Args:
            evaluated: Of all of them.
            exact: Of those with an exact density.
            in_state: Whether they are in the state.
        """
        # Version 0.1 computed only those of the first samples.
        num_exact = len(exact["log_density_z"])
        is_weighted = exact.get("is_weighted", exact.get("is_top", np.zeros(num_exact, dtype=bool)))
        rows = exact.get("row", np.arange(num_exact))
        log_density_exact = np.full(len(evaluated["log_density"]), np.nan)
        log_density_exact[rows] = exact["log_density_z"] - evaluated["log_det_decode"][rows]
        inverted = np.zeros(len(log_density_exact), dtype=bool)
        inverted[rows] = exact.get("inverted", False)
        inclusion = None
        if "inclusion" in exact:
            inclusion = np.zeros(len(log_density_exact))
            inclusion[rows] = exact["inclusion"]
        return cls(
            reduced_potential=evaluated["reduced_potential"],
            log_density=evaluated["log_density"],
            log_density_exact=log_density_exact,
            num_random=int((~is_weighted).sum()),
            phi=evaluated["phi"],
            psi=evaluated["psi"],
            in_state=in_state,
            valid=evaluated["valid"],
            native_chirality=evaluated["native_chirality"],
            # Version 0.1 never inverted a sample.
            mirrored=evaluated.get("mirrored", np.zeros_like(evaluated["valid"])),
            inverted=inverted if "inverted" in exact else None,
            cpu_seconds=evaluated["cpu_seconds"],
            cpu_seconds_exact=exact["cpu_seconds"],
            inclusion=inclusion,
        )

    def annealed(self, arrived: Mapping[str, np.ndarray], in_state: NDArray[np.bool_]) -> "Samples":
        """Return the same samples where annealing brought them.

        Args:
            arrived: The data set of them there.
            in_state: Whether they are in the state there.
        """
        return replace(
            self,
            reduced_potential=arrived["reduced_potential"],
            phi=arrived["phi"],
            psi=arrived["psi"],
            in_state=in_state,
            log_weights_annealed=arrived["log_weights"],
        )

    def with_exact(self, exact: Mapping[str, np.ndarray]) -> "Samples":
        """Return the same samples with exact densities of some, and of no others.

        Args:
            exact: Which, ``row``, the first `num_random` among them; ``log_density`` where they
                were drawn [nats], ``inverted``, and ``cpu_seconds`` [s]; ``inclusion`` of all.
        """
        log_density = np.full(len(self.log_density), np.nan)
        inverted = np.zeros(len(log_density), dtype=bool)
        log_density[exact["row"]] = exact["log_density"]
        inverted[exact["row"]] = exact["inverted"]
        return replace(
            self,
            log_density_exact=log_density,
            inverted=inverted,
            cpu_seconds_exact=exact["cpu_seconds"],
            inclusion=exact["inclusion"],
        )

    @property
    def is_molecule(self) -> NDArray[np.bool_]:
        """Which samples are the molecule, ``(n,)``; the others have weight zero."""
        return self.valid & self.native_chirality

    @property
    def has_weight(self) -> bool:
        """Whether any sample has a weight; without one there is nothing to estimate."""
        return bool(np.isfinite(self.log_weights_learned).any())

    @property
    def log_weights(self) -> FloatArray:
        """The weights that every number is of, ``(n,)`` [nats]; mirror images have none.

        Exact where they are heaviest on either side of the state, elsewhere learned and calibrated.
        """
        return stratified_log_weights(
            self.log_weights_learned,
            self.log_weights_exact,
            self.in_state,
            num_random=self.num_random,
            inclusion=self.inclusion,
        )

    @property
    def log_weights_learned(self) -> FloatArray:
        """Log weights by the learned density alone, ``(n,)``."""
        if self.log_weights_annealed is not None:
            return self.log_weights_annealed
        return molecule_log_weights(self.reduced_potential, self.log_density, self.native_chirality)

    @property
    def log_weights_exact(self) -> FloatArray:
        """Log weights by the exact density, ``(n,)``; NaN where it was not computed."""
        return self.log_weights_learned + self.log_density - self.log_density_exact
