"""Can an estimate be trusted? A judgement of its weights in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIN_EFFECTIVE_SAMPLES = 100
MIN_EFFECTIVE_SAMPLES_PER_SIDE = 30
MAX_PARETO_K = 0.7
MAX_REJECTED = 0.2
MAX_LOG_DENSITY_ERROR_KT = 1.0


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate is reliable, why, and what would make it so.

    Args:
        reliable: Whether every check passed.
        reasons: What failed, or what was found where nothing did; whole sentences.
        advice: What to do about each failure; none where nothing failed.
    """

    reliable: bool
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Verdict":
        """Return the verdict that `as_record` described."""
        return cls(record["reliable"], tuple(record["reasons"]), tuple(record["advice"]))

    def as_record(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        return {
            "reliable": self.reliable,
            "reasons": list(self.reasons),
            "advice": list(self.advice),
        }

    @property
    def label(self) -> str:
        """One word for tables."""
        return "reliable" if self.reliable else "UNRELIABLE"

    def lines(self) -> list[str]:
        """Return the verdict for a terminal: one line, or one more for each advice."""
        if self.reliable:
            return [self.label]
        return [f"{self.label}: {' '.join(self.reasons)}", *self.advice]


@dataclass(frozen=True)
class _Check:
    """One finding.

    Args:
        passes: Whether it is as it should be.
        finding: A sentence that is true either way.
        limit: What would have been enough.
        advice: What to do if it does not pass.
    """

    passes: bool
    finding: str
    limit: str
    advice: str


def judge(metrics: Mapping[str, Any]) -> Verdict:
    """Judge an estimate by the diagnostics of its weights.

    Args:
        metrics: As of ``metrics.json``. Where no exact likelihoods were computed,
            ``log_density_error_sd_kT`` is absent and the energy model is taken as it is.
    """
    checks = [_effective_samples(metrics), _tail(metrics), _coverage(metrics), _rejected(metrics)]
    if "log_density_error_sd_kT" in metrics:
        checks.append(_learned_density(metrics))
    failed = [check for check in checks if not check.passes]
    if not failed:
        return Verdict(True, tuple(f"{check.finding}." for check in checks), ())
    return Verdict(
        False,
        tuple(f"{check.finding}, {check.limit}." for check in failed),
        tuple(dict.fromkeys(f"{check.advice}." for check in failed)),
    )


def _effective_samples(metrics: Mapping[str, Any]) -> _Check:
    num_samples = metrics["ess_num_samples"]
    effective = metrics["ess_fraction"] * num_samples
    factor = MIN_EFFECTIVE_SAMPLES / effective
    return _Check(
        effective >= MIN_EFFECTIVE_SAMPLES,
        f"{num_samples} samples are worth {effective:.0f} independent ones",
        f"fewer than {MIN_EFFECTIVE_SAMPLES}",
        f"Draw at least {factor:.1f} times as many samples (evaluate.num_samples), or train "
        "the emulator longer (emulator.num_steps)",
    )


def _tail(metrics: Mapping[str, Any]) -> _Check:
    return _Check(
        metrics["pareto_k"] < MAX_PARETO_K,
        f"The tail of the weights has a Pareto k of {metrics['pareto_k']:.2f}",
        f"not below {MAX_PARETO_K}: a few samples decide, and more of them do not help",
        "Train the emulator longer or make it wider (emulator.num_steps, emulator.width)",
    )


def _coverage(metrics: Mapping[str, Any]) -> _Check:
    inside, outside = metrics["ess_in_state"], metrics["ess_outside_state"]
    return _Check(
        min(inside, outside) >= MIN_EFFECTIVE_SAMPLES_PER_SIDE,
        f"The state holds {inside:.0f} effective samples, the rest {outside:.0f}",
        f"and each side needs {MIN_EFFECTIVE_SAMPLES_PER_SIDE}",
        "Draw more samples, or train on data with a larger share of the rarer side "
        "(dataset.state_fraction)",
    )


def _rejected(metrics: Mapping[str, Any]) -> _Check:
    share = metrics["num_rejected"] / metrics["ess_num_samples"]
    return _Check(
        share <= MAX_REJECTED,
        f"{share:.1%} of the samples are broken or of the wrong chirality and have no weight",
        f"more than {MAX_REJECTED:.0%}",
        "Train the emulator longer, or with more integration steps (emulator.num_ode_steps)",
    )


def _learned_density(metrics: Mapping[str, Any]) -> _Check:
    error = metrics["log_density_error_sd_kT"]
    return _Check(
        error <= MAX_LOG_DENSITY_ERROR_KT,
        f"The learned log density scatters by {error:.2f} kT about the exact one",
        f"more than {MAX_LOG_DENSITY_ERROR_KT:.0f} kT",
        "Train the energy model longer or make it wider (energy.num_steps, energy.width)",
    )
