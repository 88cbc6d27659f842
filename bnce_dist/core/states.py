"""Free energies of several states of one ensemble, with the covariance of their errors."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import calibrating_multiplicity
from bnce_dist.core.strata import BoolArray, FloatArray, Side

REST = "rest"
"""What everything is called that is in none of the states."""
MIN_EFFECTIVE = 10
"""With fewer effective samples the free energy of a state has no error bar to rely on."""
_MIN_EXACT = 10


@dataclass(frozen=True)
class StateEvidence:
    """What a state's free energy rests on.

    Args:
        num_samples: Samples in it.
        ess: Effective number of them (Kish); zero where none has a weight.
        pareto_k: Shape of the tail of their weights; None where it was not asked for.
        hidden_kT: How much larger the log of its weight may be than its samples show [kT]; None
            where that was not asked for, and where there is a `pareto_k` but no telling: it may be
            anything. Standard errors leave it out.
        fault: Why the state has no number; None if it has one.
    """

    num_samples: int
    ess: float
    pareto_k: float | None = None
    hidden_kT: float | None = None
    fault: str | None = None


@dataclass(frozen=True, eq=False)
class StateFreeEnergies:
    r"""Weights and free energies of states that share no sample, all from the same replicates.

    Args:
        names: Of the states that have a number, `REST` at the end if it has one.
        weights: Probability of each, ``(states,)``.
        weight_stderrs: Their standard errors, ``(states,)``.
        free_energies_kT: :math:`f = -\ln p` of each, ``(states,)`` [kT].
        covariance_kT2: Of these, ``(states, states)`` [kT^2]; NaN where nothing shows the error.
        evidence: Of every state, also of those without a number, and of the rest.
    """

    names: tuple[str, ...]
    weights: FloatArray
    weight_stderrs: FloatArray
    free_energies_kT: FloatArray
    covariance_kT2: FloatArray
    evidence: Mapping[str, StateEvidence]

    @property
    def stderrs_kT(self) -> FloatArray:
        """Standard errors of the free energies, ``(states,)`` [kT]."""
        return np.sqrt(np.diag(self.covariance_kT2))

    @property
    def differences_kT(self) -> FloatArray:
        """``f(row) - f(column)``, ``(states, states)`` [kT]."""
        return self.free_energies_kT[:, None] - self.free_energies_kT[None, :]

    @property
    def difference_stderrs_kT(self) -> FloatArray:
        """Their standard errors, which know how the two err together, ``(states, states)`` [kT]."""
        variances = np.diag(self.covariance_kT2)
        squares = variances[:, None] + variances[None, :] - 2 * self.covariance_kT2
        return np.sqrt(np.maximum(squares, 0.0))


@dataclass(frozen=True)
class _Part:
    """The weight of some of the samples, its replicates, and what it rests on."""

    log_sum: float
    replicates: FloatArray
    evidence: StateEvidence


def state_free_energies(
    log_weights: ArrayLike,
    log_weights_exact: ArrayLike,
    states: Mapping[str, BoolArray],
    *,
    num_random: int,
    inclusion: ArrayLike | None = None,
    num_bootstrap: int = 500,
    seed: int = 0,
) -> StateFreeEnergies:
    """Return free energies from many approximate weights and a few exact ones.

    Each state, and the rest, is weighed by strata as a side of `stratified_delta_f` is, and one
    Bayesian bootstrap over all samples gives the errors. A state with too few effective samples
    has no number, and belongs to the rest.

    Args:
        log_weights: From the approximate density, ``(n,)`` [nats]; ``-inf`` for none.
        log_weights_exact: From the exact density, ``(n,)`` [nats]; NaN where it was not computed.
        states: Which samples are in each, ``(n,)`` bool, by name.
        num_random: How many of the first samples have an exact weight whatever they weigh.
        inclusion: As for `stratified_delta_f`.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: two states share samples, or lengths differ.
    Source: Rubin (1981), Ann. Statist. 9, 130 (Bayesian bootstrap).
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    exact = np.asarray(log_weights_exact, dtype=np.float64)
    _require_disjoint(states, len(weights))
    multiplicity = calibrating_multiplicity(exact, num_random, inclusion)
    rng = np.random.default_rng(seed)

    def weigh(inside: BoolArray) -> _Part:
        columns = weights[inside], exact[inside], multiplicity[inside]
        return _weigh_samples(*columns, num_bootstrap=num_bootstrap, rng=rng)

    parts = {name: weigh(inside) for name, inside in states.items()}
    return _joined(parts, weigh(_others(parts, states, len(weights))))


def replica_state_free_energies(
    log_weights: ArrayLike,
    replica: NDArray[np.integer],
    states: Mapping[str, BoolArray],
    *,
    num_bootstrap: int = 500,
    seed: int = 0,
) -> StateFreeEnergies:
    r"""Return free energies from the correlated frames of independent simulations.

    The replicates weigh whole simulations, and the frames in each as if they were independent: a
    few simulations may agree by chance, but no better than their frames allow. Of :math:`R`
    simulations a Bayesian bootstrap has a variance too small by :math:`(R - 1) / (R + 1)`, which is
    put right; a single one shows no error.

    Args:
        log_weights: ``(frames,)`` [nats].
        replica: Which independent simulation a frame is of, ``(frames,)``.
        states: Which frames are in each, ``(frames,)`` bool, by name.
        num_bootstrap: Replicates.
        seed: Of the replicates.

    Raises: InputError: two states share frames, or lengths differ.
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    _require_disjoint(states, len(weights))
    scaled: FloatArray = np.exp(weights - weights.max())
    names, row = np.unique(replica, return_inverse=True)
    rng = np.random.default_rng(seed)
    copies = rng.standard_exponential((num_bootstrap, len(names)))

    def weigh(inside: BoolArray) -> _Part:
        # Its own heaviest frame is 1, so that squares do not vanish together.
        largest = float(scaled[inside].max(initial=0.0))
        own = scaled[inside] / (largest or 1.0)
        total = own.sum()
        ess = float(total**2 / np.square(own).sum()) if total else 0.0
        evidence = StateEvidence(int(inside.sum()), ess, fault=_fault(int(inside.sum()), ess))
        mass = np.bincount(row[inside], own, len(names)).astype(np.float64)
        spread = np.bincount(row[inside], own**2, len(names)).astype(np.float64)
        sums = copies * _gamma_sums(mass, spread, num_bootstrap, rng)
        with np.errstate(divide="ignore"):
            scale = np.log(largest)
            return _Part(float(np.log(total) + scale), np.log(sums.sum(axis=1)) + scale, evidence)

    parts = {name: weigh(inside) for name, inside in states.items()}
    rest = weigh(_others(parts, states, len(weights)))
    count = len(names)
    return _joined(parts, rest, inflation=(count + 1) / (count - 1) if count > 1 else math.nan)


def _require_disjoint(states: Mapping[str, BoolArray], num_samples: int) -> None:
    """Refuse states that share samples.

    Raises: InputError: two do, one is called `REST`, or a length is not the number of samples.
    """
    if REST in states:
        raise InputError(
            "names of states", expected=f"others than {REST!r}, which is everything else",
            got=repr(REST), remedy="call it something else",
        )  # fmt: skip
    names = list(states)
    for number, name in enumerate(names):
        if states[name].dtype != np.bool_ or states[name].shape != (num_samples,):
            raise InputError(
                f"state {name}",
                expected=f"{num_samples} booleans, one per sample",
                got=f"{states[name].dtype} of shape {states[name].shape}",
                remedy="ask for it with Ensemble.state",
            )
        for other in names[:number]:
            num_shared = int((states[name] & states[other]).sum())
            if num_shared:
                raise InputError(
                    f"states {other} and {name}",
                    expected="no sample in both",
                    got=f"{num_shared} of {num_samples} samples in both",
                    remedy="move their edges, or take one out of the other with 'and not'",
                )


def _gamma_sums(
    mass: FloatArray, squares: FloatArray, size: int, rng: np.random.Generator
) -> FloatArray:
    """Return sums of weights times exponential numbers, by the gamma of their mean and variance."""
    sums = np.zeros((size, len(mass)))
    some = squares > 0
    shape = mass[some] ** 2 / squares[some]
    sums[:, some] = rng.gamma(shape, mass[some] / shape, (size, len(shape)))
    return sums


def _others(
    parts: Mapping[str, _Part], states: Mapping[str, BoolArray], num_samples: int
) -> BoolArray:
    """Return which samples are in no state that has a number."""
    rest = np.ones(num_samples, dtype=bool)
    for name, part in parts.items():
        if part.evidence.fault is None:
            rest &= ~states[name]
    return rest


def _weigh_samples(
    log_weights: FloatArray,
    log_exact: FloatArray,
    multiplicity: FloatArray,
    *,
    num_bootstrap: int,
    rng: np.random.Generator,
) -> _Part:
    num_samples, num_weighted = len(log_weights), int(np.isfinite(log_weights).sum())
    num_exact = int((~np.isnan(log_exact)).sum())
    if not num_weighted:
        evidence = StateEvidence(num_samples, 0.0, fault=_fault(num_samples, 0.0))
        return _Part(-math.inf, np.full(num_bootstrap, -math.inf), evidence)
    side, is_calibrated = _split(log_weights, log_exact, multiplicity)
    replicates = side.replicates(num_bootstrap, rng)
    summary = side.summary(replicates)
    fault = _fault(num_samples, summary.ess)
    if fault is None and num_exact < min(_MIN_EXACT, num_weighted):
        fault = f"{num_exact} exact densities, fewer than {_MIN_EXACT}"
    elif fault is None and not is_calibrated:
        fault = "no exact density that calibrates the learned ones"
    evidence = StateEvidence(
        num_samples, summary.ess, summary.pareto_k, summary.known_hidden_kT, fault
    )
    return _Part(side.log_sum, replicates.log_sums, evidence)


def _split(
    log_weights: FloatArray, log_exact: FloatArray, multiplicity: FloatArray
) -> tuple[Side, bool]:
    """Return the strata of a state, and whether exact weights calibrate them."""
    if np.isfinite(log_exact).any():
        with contextlib.suppress(InputError):
            return Side.split(log_weights, log_exact, multiplicity), True
    # Approximate weights are the best there is to say of its share of the total.
    return Side.split(log_weights, log_weights, np.ones(len(log_weights))), False


def _fault(num_samples: int, ess: float) -> str | None:
    if not num_samples:
        return "no sample in it"
    if not ess:
        return f"{num_samples} samples, none with a weight"
    if ess < MIN_EFFECTIVE:
        return f"{ess:.1f} effective samples, fewer than {MIN_EFFECTIVE}"
    return None


def _joined(
    parts: Mapping[str, _Part], rest: _Part, *, inflation: float = 1.0
) -> StateFreeEnergies:
    """Return the free energies relative to the sum of all parts.

    Args:
        parts: The states.
        rest: All samples that are in no state with a number.
        inflation: Of the variance over replicates.
    """
    everything = {**parts, REST: rest}
    evidence = {name: part.evidence for name, part in everything.items()}
    if not rest.evidence.num_samples:
        del evidence[REST]
    shown = {name: p for name, p in everything.items() if p.evidence.fault is None}
    summed = [p for name, p in everything.items() if name in shown or name == REST]
    total = np.logaddexp.reduce([part.log_sum for part in summed])
    totals = np.logaddexp.reduce([part.replicates for part in summed])
    log_p = np.array([part.log_sum for part in shown.values()]) - total
    size = len(shown)
    replicates = np.array([p.replicates - totals for p in shown.values()]).reshape(
        size, len(totals)
    )
    covariance = np.cov(replicates) * inflation if size else np.zeros((0, 0))
    return StateFreeEnergies(
        names=tuple(shown),
        weights=np.exp(log_p),
        weight_stderrs=np.exp(replicates).std(axis=1, ddof=1) * math.sqrt(inflation),
        free_energies_kT=-log_p,
        covariance_kT2=covariance.reshape(size, size),
        evidence=evidence,
    )
