"""The independent reference: a free-energy difference from umbrella samples, or a refusal."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import stdtr, stdtrit

from bnce_dist.chem.simulation.mbar import unbiased_log_weights, window_free_energies
from bnce_dist.chem.simulation.umbrella import RECORDED, WindowFrames
from bnce_dist.chem.state import POSITIVE_PHI, State
from bnce_dist.core.errors import InputError
from bnce_dist.core.free_energy import log_weight_difference

SIGNIFICANCE = 0.02
"""A trend or disagreement less likely than this by chance means: not converged."""


@dataclass(frozen=True)
class ReferenceFreeEnergy:
    """A free-energy difference with the evidence for and against it.

    The unit of the statistics is one time block of one replica, a replica being one
    independent run. Correlation between the blocks of a replica would show as disagreement
    between replicas, slow equilibration as a trend.

    Args:
        delta_f_kT: f(state) - f(rest) from all samples together [kT].
        stderr_kT: Standard error: from the spread of the blocks or of the replicas, whichever is
            larger [kT].
        interval_kT: 95 % interval by Student's t at the freedom of that spread [kT].
        replica_delta_f_kT: From all samples of each replica, ``(replicas,)`` [kT].
        block_delta_f_kT: One MBAR estimate each, ``(replicas, blocks)`` [kT].
        trend_p_value: Chance of so steep a trend over time without drift.
        halves_p_value: Chance of such different halves in time without drift.
        agreement_p_value: Chance of such different replica means in equilibrium.
        converged: Whether the value may be used as a reference.
        reason: Why, or why not.
        phi: All samples, run after run, each in the order of its ``(frames, chains)`` [rad].
        psi: ``(samples,)`` [rad].
        log_weights: Normalised log weights of the unbiased ensemble, ``(samples,)``.
        replica: Replica of each sample, ``(samples,)``.
    """

    delta_f_kT: float
    stderr_kT: float
    interval_kT: tuple[float, float]
    replica_delta_f_kT: np.ndarray
    block_delta_f_kT: np.ndarray
    trend_p_value: float
    halves_p_value: float
    agreement_p_value: float
    converged: bool
    reason: str
    phi: np.ndarray
    psi: np.ndarray
    log_weights: np.ndarray
    replica: np.ndarray


def estimate_reference(
    runs: Sequence[WindowFrames],
    *,
    state: State = POSITIVE_PHI,
    num_blocks: int = 5,
    max_stderr_kT: float = 0.10,
    max_samples: int = 15_000,
) -> ReferenceFreeEnergy:
    """Estimate the free-energy difference and judge whether it has converged.

    Args:
        runs: Independent runs with the same windows.
        state: Its free energy is estimated.
        num_blocks: Blocks in time of each replica.
        max_stderr_kT: Largest standard error that counts as converged [kT].
        max_samples: Samples of a run from which the window free energies are solved; all
            samples are then reweighted.

    Raises: InputError: the runs have different windows, or fewer frames than blocks.
    """
    _require_comparable(runs, num_blocks)
    solve = partial(_solve, state=state, num_blocks=num_blocks, max_samples=max_samples)
    # The sums over samples and windows leave Python to other threads.
    with ThreadPoolExecutor(min(len(runs), os.cpu_count() or 1)) as threads:
        free_energies, blocks = zip(*threads.map(solve, runs), strict=True)
    phi, psi = (np.concatenate([getattr(run, x).ravel() for run in runs]) for x in ("phi", "psi"))
    log_weights = np.concatenate([
        _log_weights(run, run_free_energies) - np.log(len(runs))
        for run, run_free_energies in zip(runs, free_energies, strict=True)
    ])  # fmt: skip
    by_replica = np.array(blocks)
    # Blocks are shorter than runs, and their estimates biased: they give the spread only.
    replicas = np.array([
        _delta_f(run.phi.ravel(), run.psi.ravel(), _log_weights(run, run_free_energies), state)
        for run, run_free_energies in zip(runs, free_energies, strict=True)
    ])  # fmt: skip
    # A block that never met one side is infinite, and none of these is then a number.
    with np.errstate(invalid="ignore", divide="ignore"):
        stderr, freedom = standard_error(by_replica, replicas)
        trend, halves = trend_p_value(by_replica), halves_p_value(by_replica)
        agreement = agreement_p_value(by_replica)
    converged, reason = convergence(stderr, trend, halves, agreement, max_stderr_kT)
    value = _delta_f(phi, psi, log_weights, state)
    reach = float(stdtrit(freedom, 0.975)) * stderr
    return ReferenceFreeEnergy(
        delta_f_kT=value,
        stderr_kT=stderr,
        interval_kT=(value - reach, value + reach),
        replica_delta_f_kT=replicas,
        block_delta_f_kT=by_replica,
        trend_p_value=trend,
        halves_p_value=halves,
        agreement_p_value=agreement,
        converged=converged,
        reason=reason,
        phi=phi,
        psi=psi,
        log_weights=log_weights,
        replica=np.repeat(np.arange(len(runs)), [run.phi.size for run in runs]),
    )


def _solve(
    run: WindowFrames, *, state: State, num_blocks: int, max_samples: int
) -> tuple[np.ndarray, list[float]]:
    """Return a run's window free energies and one free-energy difference for each time block."""
    free_energies = window_free_energies(
        run.phi.ravel(), run.psi.ravel(), run.window.ravel(), run.windows,
        max_samples=max_samples,
    )  # fmt: skip
    blocks = []
    for block in _blocks(run, num_blocks):
        of_block = window_free_energies(
            block.phi.ravel(), block.psi.ravel(), block.window.ravel(), run.windows,
            max_samples=max_samples // num_blocks, initial=free_energies,
        )  # fmt: skip
        log_weights = _log_weights(block, of_block)
        blocks.append(_delta_f(block.phi.ravel(), block.psi.ravel(), log_weights, state))
    return free_energies, blocks


def _delta_f(phi: np.ndarray, psi: np.ndarray, log_weights: np.ndarray, state: State) -> float:
    return log_weight_difference(log_weights, state.contains(phi, psi))


def _require_comparable(runs: Sequence[WindowFrames], num_blocks: int) -> None:
    if any(run.windows != runs[0].windows for run in runs):
        raise InputError(
            "umbrella runs", expected="the same windows in all", got="different windows",
            remedy="estimate from runs of one configuration",
        )  # fmt: skip
    shortest = min(len(run.phi) for run in runs)
    if not 2 <= num_blocks <= shortest:
        raise InputError(
            "num_blocks", expected=f"2 to {shortest}, the number of recorded frames",
            got=num_blocks, remedy="run longer or use fewer blocks",
        )  # fmt: skip


def _blocks(run: WindowFrames, num_blocks: int) -> Iterator[WindowFrames]:
    length = len(run.phi) // num_blocks
    for block in range(num_blocks):
        part = slice(block * length, (block + 1) * length)
        arrays = {name: getattr(run, name)[part] for name in RECORDED}
        yield replace(run, **arrays)


def _log_weights(run: WindowFrames, free_energies: np.ndarray) -> np.ndarray:
    return unbiased_log_weights(
        run.phi.ravel(), run.psi.ravel(), run.common_bias.ravel(), free_energies, run.windows
    )


def convergence(
    stderr: float, trend: float, halves: float, agreement: float, max_stderr_kT: float
) -> tuple[bool, str]:
    """Return whether a reference has converged, and why or why not.

    Args:
        stderr: Standard error [kT].
        trend: As of `trend_p_value`.
        halves: As of `halves_p_value`.
        agreement: As of `agreement_p_value`.
        max_stderr_kT: Largest standard error that counts as converged [kT].
    """
    faults = []
    if not trend > SIGNIFICANCE:
        faults.append(f"the blocks trend (p = {trend:.2g}): equilibrate longer")
    if not halves > SIGNIFICANCE:
        faults.append(f"the halves disagree (p = {halves:.2g}): equilibrate longer")
    if not agreement > SIGNIFICANCE:
        faults.append(f"the replicas disagree (p = {agreement:.2g}): run longer")
    if not stderr <= max_stderr_kT:
        faults.append(f"standard error {stderr:.3f} kT above {max_stderr_kT:g}: run longer")
    if faults:
        return False, "; ".join(faults)
    return True, (
        f"no trend (p = {trend:.2g}), halves agree (p = {halves:.2g}), "
        f"replicas agree (p = {agreement:.2g}), "
        f"standard error {stderr:.3f} kT"
    )


def trend_p_value(blocks: np.ndarray) -> float:
    """Return how likely so steep a trend over the blocks is in the absence of one.

    One common slope in time is fitted to all replicas, each with its own mean, and tested by
    Student's t.

    Args:
        blocks: Estimates in order of time, ``(replicas, blocks)``.
    """
    num_replicas, num_blocks = blocks.shape
    time = np.arange(num_blocks) - (num_blocks - 1) / 2
    centred = blocks - blocks.mean(axis=1, keepdims=True)
    sum_of_squares = num_replicas * (time**2).sum()
    slope = (centred * time).sum() / sum_of_squares
    freedom = num_replicas * (num_blocks - 1) - 1
    residual_variance = ((centred - slope * time) ** 2).sum() / freedom
    return float(2 * stdtr(freedom, -abs(slope) / np.sqrt(residual_variance / sum_of_squares)))


def halves_p_value(blocks: np.ndarray) -> float:
    """Return how likely halves so different are in the absence of a drift.

    The mean difference over all replicas is tested by Student's t, against the spread of blocks
    within halves; a middle block is left out.

    Args:
        blocks: Estimates in order of time, ``(replicas, blocks)``; fewer than four of a replica
            tell nothing and give 1.
    """
    num_replicas, half = len(blocks), blocks.shape[1] // 2
    if half < 2:
        return 1.0
    halves = np.stack([blocks[:, :half], blocks[:, -half:]])
    difference = float((halves[1] - halves[0]).mean())
    freedom = 2 * num_replicas * (half - 1)
    variance = ((halves - halves.mean(axis=2, keepdims=True)) ** 2).sum() / freedom
    stderr = np.sqrt(2 * variance / (num_replicas * half))
    return float(2 * stdtr(freedom, -abs(difference) / stderr))


def standard_error(blocks: np.ndarray, replicas: np.ndarray) -> tuple[float, int]:
    """Return the standard error of the mean, and its degrees of freedom.

    Blocks are many but may be correlated; replicas are few but independent. The larger error is
    the honest one.

    Args:
        blocks: Estimates, ``(replicas, blocks)``.
        replicas: One estimate of each, ``(replicas,)``.
    """
    within = float(np.std(blocks, ddof=1) / np.sqrt(blocks.size))
    if len(replicas) == 1:
        return within, blocks.size - 1
    between = float(np.std(replicas, ddof=1) / np.sqrt(len(replicas)))
    return (between, len(replicas) - 1) if between > within else (within, blocks.size - 1)


def agreement_p_value(blocks: np.ndarray) -> float:
    """Return how likely replica means so different are if all replicas sample the same.

    Args:
        blocks: Estimates, ``(replicas, blocks)``; one replica always agrees with itself.

    Source: Fisher's one-way analysis of variance.
    """
    # Only here, because importing it takes half a second in every process of a cluster.
    from scipy.stats import f_oneway

    return float(f_oneway(*blocks).pvalue) if len(blocks) > 1 else 1.0
