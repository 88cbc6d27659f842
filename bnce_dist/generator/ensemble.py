"""Weighted conformations, and what can be asked of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.order_parameters import find_torsion
from bnce_dist.chem.state import members
from bnce_dist.core.bennett import Estimate
from bnce_dist.core.errors import InputError
from bnce_dist.core.free_energy import (
    FreeEnergyDifference,
    delta_f,
    shift_by_folds,
    stratified_delta_f,
    stratified_log_weights,
    with_correction,
)
from bnce_dist.core.places import local_path
from bnce_dist.core.random import generator
from bnce_dist.core.resampling import systematic_resampling
from bnce_dist.core.weights import Weights
from bnce_dist.generator.ensemble_file import write_ensemble
from bnce_dist.generator.metrics import evidence, weight_diagnostics
from bnce_dist.generator.samples import FloatArray
from bnce_dist.generator.target import Target
from bnce_dist.generator.unseen import unseen_notes
from bnce_dist.generator.verdict import FRESH, Verdict, judge, nothing_left


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Conformations of one molecule with weights towards its Boltzmann distribution.

    Args:
        target: The distribution.
        positions_nm: ``(samples, atoms, 3)`` [nm].
        log_density: Of the emulator, ``(samples,)`` [nats].
        reduced_potential: ``(samples,)`` [kT]; infinite where the sample is no molecule.
        log_weights: By that density, unnormalised, ``(samples,)`` [nats]; ``-inf`` for a broken or
            mirrored sample. ``-reduced_potential - log_density`` unless samples were annealed.
        log_weights_exact: By the exact density, ``(samples,)`` [nats]; NaN where it was not
            computed; absent if nowhere.
        num_random: How many of the first samples have one whatever they weigh.
        inclusion: Probability that each had of getting one, ``(samples,)``; absent where those
            beside the first are the heaviest.
        inverted: Of those that have one, whether the sampler turned space inside out there,
            ``(samples,)``; absent if nobody looked.
        correction: What the learned density's ``delta_f`` of the target's state lacks, as an
            earlier evaluation measured it; absent if none did.
        unseen: What of the molecule was in no training, as of `unseen_of`.
        num_levels: Of their annealing; 0 if they were not annealed.
        is_resampled: Whether some are copies of others, of which no error bar can be made.
    """

    target: Target
    positions_nm: FloatArray
    log_density: FloatArray
    reduced_potential: FloatArray
    log_weights: FloatArray
    log_weights_exact: FloatArray | None = None
    num_random: int = 0
    inclusion: FloatArray | None = None
    inverted: NDArray[np.bool_] | None = None
    correction: Estimate | None = None
    unseen: Mapping[str, Any] = field(default_factory=dict)
    num_levels: int = 0
    is_resampled: bool = False

    def __len__(self) -> int:
        return len(self.log_weights)

    @cached_property
    def weights(self) -> Weights:
        """The weights with all their diagnostics: exact where they decide, if they are known.

        Raises: InputError: no sample has any weight.
        """
        if self.log_weights_exact is None:
            return Weights(self.log_weights)
        return Weights(
            stratified_log_weights(
                self.log_weights,
                self.log_weights_exact,
                self.in_state,
                num_random=self.num_random,
                inclusion=self.inclusion,
            )
        )

    @property
    def num_rejected(self) -> int:
        """Samples without weight: broken, or of the wrong chirality."""
        return int(np.isneginf(self.log_weights).sum())

    @property
    def has_weight(self) -> bool:
        """Whether any sample has a weight; without one there is nothing to estimate."""
        return self.num_rejected < len(self)

    @property
    def ess_fraction(self) -> float:
        """Effective sample size over the number of samples; it depends on that number."""
        return self.weights.ess_fraction

    @property
    def pareto_k(self) -> float:
        """Shape of the weights' tail; from 1 on they have no mean."""
        return self.weights.pareto_k

    @cached_property
    def phi(self) -> FloatArray:
        """The first phi torsion, ``(samples,)`` [rad]."""
        return self._torsion(self.target.molecule.phi)

    @cached_property
    def psi(self) -> FloatArray:
        """The first psi torsion, ``(samples,)`` [rad]."""
        return self._torsion(self.target.molecule.psi)

    def torsion(self, name: str) -> FloatArray:
        """Return any torsion, ``(samples,)`` [rad].

        Args:
            name: ``phi``, ``chi1:2``, ``C1-C2-C3-C4`` ... (`order_parameters.find_torsion`).

        Raises: InputError: there is none of that name.
        """
        return self._torsion(find_torsion(self.target.molecule, name))

    def state(self, condition: str) -> NDArray[np.bool_]:
        """Return which samples are in any state, ``(samples,)``, as `delta_f` takes it.

        Args:
            condition: Intervals of order parameters joined by ``and``, ``or`` and ``not``:
                ``"chi1:2 in [0, 2] and distance(2:N,2:O) in [0, 0.35]"`` [rad, nm].

        Raises: InputError: it cannot be read, or an order parameter is unknown.
        """
        return members(self.target.molecule, condition, self.positions_nm)

    @property
    def in_state(self) -> NDArray[np.bool_]:
        """Which samples are in the target's state, ``(samples,)``."""
        return self.target.state.contains(self.phi, self.psi)

    def delta_f(
        self, in_state: ArrayLike | None = None, *, num_bootstrap: int = 500, seed: int = 0
    ) -> FreeEnergyDifference:
        """Return the free energy of a state relative to everything else, with its interval.

        Exact densities, or the correction that an earlier evaluation measured, enter value and
        interval. Without either the interval is of sampling only: the learned density's own error
        is not in it. Where the sampler folds space, as exact densities find out, the interval
        reaches as far as that shifts the value.

        Args:
            in_state: Whether each sample is in the state, ``(samples,)`` bool; by default the
                target's own state. A correction is known of that one only.
            num_bootstrap: Replicates of the error bar.
            seed: Of the replicates.

        Raises: InputError: one side of the division is empty, or samples that were resampled.
        """
        if self.is_resampled:
            raise InputError(
                "delta_f",
                expected="samples as they were drawn, with their weights",
                got="resampled ones, whose copies would count as independent",
                remedy="ask the ensemble that they were resampled from",
            )
        inside = self.in_state if in_state is None else in_state
        if self.log_weights_exact is not None:
            result = stratified_delta_f(
                self.log_weights,
                self.log_weights_exact,
                inside,
                num_random=self.num_random,
                inclusion=self.inclusion,
                num_bootstrap=num_bootstrap,
                seed=seed,
            )
            shift = self._fold_shift_kT(np.asarray(inside)) or 0.0
            return replace(result, interval_kT=result.interval_reaching(shift))
        sampled = delta_f(self.log_weights, inside, num_bootstrap=num_bootstrap, seed=seed)
        if self.correction is None or in_state is not None:
            return sampled
        return with_correction(sampled, self.correction.value_kT, self.correction.stderr_kT)

    def diagnostics(self) -> dict[str, Any]:
        """Return what a verdict is made from, under the names of ``metrics.json``.

        Where no sample has any weight, the effective sizes and the tail are None.
        """
        if not self.has_weight:
            names = ("ess_fraction", "ess_in_state", "ess_outside_state", "pareto_k")
            counts = {"ess_num_samples": len(self), "num_rejected": self.num_rejected}
            return dict.fromkeys(names) | counts
        numbers = weight_diagnostics(self.weights, self.in_state) | evidence(self.delta_f())
        if self.inverted is not None:
            numbers["num_negative_determinants"] = int(self.inverted.sum())
            numbers["delta_f_fold_shift_kT"] = self._fold_shift_kT(self.in_state)
        if self.log_weights_exact is None:
            known = self.correction
            numbers["correction_kT"] = known.value_kT if known else None
            numbers["correction_stderr_kT"] = known.stderr_kT if known else None
            numbers["model_error_kT"] = numbers["correction_stderr_kT"]
            for side in ("in_state", "outside_state"):
                numbers[f"num_exact_{side}"] = 0
                for name in (f"correction_{side}_kT", f"correction_{side}_stderr_kT"):
                    numbers.pop(name, None)
        return numbers

    @property
    def verdict(self) -> Verdict:
        """Whether the free energy of the target's state can be trusted."""
        return self.judged(self.diagnostics())

    def judged(self, metrics: Mapping[str, Any]) -> Verdict:
        """Return the verdict on these samples, with a note on what was in no training.

        Args:
            metrics: Those of `diagnostics`, and perhaps a reference, as of ``metrics.json``.
        """
        verdict = judge(metrics, FRESH) if self.has_weight else nothing_left(len(self))
        return verdict.with_notes(unseen_notes({**self.unseen, **metrics}))

    def resampled(self, num_samples: int, seed: int = 0) -> "Ensemble":
        """Return conformations drawn by their weights, all of which weigh the same afterwards.

        Those of a large weight come several times: a trajectory that viewers may show, in which
        every state has its share. For averages the weighted samples are better, and free energies,
        whose error bars copies would make too small, are theirs alone.

        Args:
            num_samples: How many.
            seed: Of the draw.

        Raises: InputError: not a positive number, or no sample has any weight.
        """
        chosen = systematic_resampling(
            torch.from_numpy(self.weights.log_weights), num_samples, generator(seed, "resample")
        ).numpy()
        return Ensemble(
            self.target,
            self.positions_nm[chosen],
            self.log_density[chosen],
            self.reduced_potential[chosen],
            np.zeros(num_samples),
            is_resampled=True,
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write everything to files and return their paths; see `write_ensemble`.

        Args:
            path: Ends in ``.npz``, ``.dcd``, ``.pdb`` or ``.xtc``.
            overwrite: Whether files that exist are to be replaced.

        Raises: InputError: an unknown format, a file that exists, or an unwritable folder.
        """
        return write_ensemble(local_path(path), self, overwrite=overwrite)

    def _fold_shift_kT(self, in_state: NDArray[np.bool_]) -> float | None:
        """Return what folds of the sampler do to `delta_f`, by the samples drawn at random."""
        if self.log_weights_exact is None or self.inverted is None:
            return None
        first = slice(self.num_random)
        return shift_by_folds(self.log_weights_exact[first], in_state[first], self.inverted[first])

    def _torsion(self, atoms: tuple[int, int, int, int]) -> FloatArray:
        return dihedral(torch.from_numpy(self.positions_nm), atoms).numpy()
