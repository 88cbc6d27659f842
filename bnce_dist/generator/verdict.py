"""Can an estimate be trusted? A judgement of its weights in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bnce_dist.core.reliability import deviation
from bnce_dist.core.tails import MAX_NO_MEAN_PROBABILITY

MIN_EFFECTIVE_SAMPLES_PER_SIDE = 45
"""Fewer make a standard error of more than 0.15 kT, which is no bar to rely on."""
MAX_REJECTED = 0.2
MAX_WEIGHT_SHARE = 0.2
MAX_MODEL_ERROR_KT = 0.15
MAX_DEVIATION = 3.0
MAX_FOLD_SHIFT_KT = 0.15
"""What is less is in the interval."""
MIN_FORWARD_OVER_REVERSE = 0.1
MAX_UNSEEN = 0.02
"""Or the standard error in kT, if that is more: what is missing moves the result by as much."""
_SIDES = {"in_state": "in the state", "outside_state": "outside the state"}


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

    def with_notes(self, notes: Sequence[str]) -> "Verdict":
        """Return the same judgement with sentences that judge nothing after its reasons."""
        return replace(self, reasons=(*self.reasons, *notes))

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
class Remedies:
    """What can be changed about a sampler, in the words of its settings; each begins a sentence.

    Args:
        draw: Gives more samples.
        correct: Corrects the learned densities of more of them.
        integrate: Makes each of them more exact.
        learn: Makes the sampler better.
        balance: Gives it more of the rarer side of the state.
    """

    draw: str = "Draw more samples (evaluate.num_samples)"
    correct: str = "Compute more exact densities (evaluate.num_exact)"
    integrate: str = "Integrate in more steps (emulator.num_ode_steps)"
    learn: str = "Train the emulator longer or make it wider (emulator.num_steps, emulator.width)"
    balance: str = "Train on data with a larger share of the rarer side (dataset.state_fraction)"


PRETRAINED = Remedies(
    draw="Draw more samples (samples.num_held_out)",
    integrate="Integrate in more steps (samples.num_steps)",
    learn="Take a field that was trained longer",
    balance="Take a field whose data hold more of the rarer side",
)
"""Of a field whose training is not at hand."""
FRESH = Remedies(
    draw="Draw more samples (num_samples)",
    correct="Compute exact densities of more of them (num_exact)",
    integrate="Train a model that integrates in more steps",
    learn="Train the model longer, or a wider one",
    balance="Train it on data with a larger share of the rarer side",
)
"""Of samples that a trained model draws when it is asked."""


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


def judge(metrics: Mapping[str, Any], remedies: Remedies = Remedies()) -> Verdict:
    """Judge an estimate by the weights on each side of the state, its model, and its reference.

    What was not measured is not judged, but an estimate by a learned density whose own error was
    never measured is not reliable.

    Args:
        metrics: As of ``metrics.json``. ``model_error_kT`` is the part of the standard error that
            the learned density's correction makes; without it the bar is of sampling only.
        remedies: What the advice can be.
    """
    checks = [
        *_tails(metrics, remedies),
        _coverage(metrics, remedies),
        _largest(metrics, remedies),
        _rejected(metrics, remedies),
        _model_error(metrics, remedies),
    ]
    if metrics.get("delta_f_fold_shift_kT") is not None:
        checks.append(_folds(metrics, remedies))
    checks += [
        check(metrics)
        for name, check in (
            ("forward_ess_in_state", _forward),
            ("unseen_in_state", _unseen),
            ("delta_f_reference_kT", _reference),
        )
        if metrics.get(name) is not None
    ]
    failed = [check for check in checks if not check.passes]
    if not failed:
        return Verdict(True, tuple(f"{check.finding}." for check in checks), ())
    return Verdict(
        False,
        tuple(f"{check.finding}, {check.limit}." for check in failed),
        (*dict.fromkeys(f"{check.advice}." for check in failed), *_more_levels(metrics)),
    )


def _more_levels(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the advice on annealing that was given fewer levels than it asked for."""
    at_limit = metrics.get("annealing_num_levels_at_limit")
    if not at_limit:
        return ()
    return (
        f"Allow more, shorter levels of annealing (evaluate.annealing.max_levels): {at_limit} of "
        f"{metrics['annealing_num_levels']} were longer than min_ess_fraction asks for.",
    )


def nothing_left(num_samples: int) -> Verdict:
    """Return the verdict on samples none of which has any weight."""
    return Verdict(
        reliable=False,
        reasons=(
            f"All {num_samples} samples are broken or of the wrong chirality: none has any weight.",
        ),
        advice=(
            "Train the emulator longer (emulator.num_steps), or with more integration steps "
            "(emulator.num_ode_steps).",
        ),
    )


def _tails(metrics: Mapping[str, Any], remedies: Remedies) -> list[_Check]:
    checks = []
    for name, where in _SIDES.items():
        shape, probability = metrics[f"pareto_k_{name}"], metrics[f"no_mean_probability_{name}"]
        passes = probability <= MAX_NO_MEAN_PROBABILITY
        may_hide = f" and may hide {metrics[f'hidden_{name}_kT']:.2f} kT" if passes else ""
        checks.append(
            _Check(
                passes,
                f"The tail of the weights {where} has a Pareto k of {shape:.2f}{may_hide}",
                f"and has no mean with a probability of {probability:.1%}, more than "
                f"{MAX_NO_MEAN_PROBABILITY:.0%}",
                f"{remedies.correct}. If that does not help, {_continued(remedies.learn)}",
            )
        )
    return checks


def _coverage(metrics: Mapping[str, Any], remedies: Remedies) -> _Check:
    inside, outside = metrics["ess_exact_in_state"], metrics["ess_exact_outside_state"]
    return _Check(
        min(inside, outside) >= MIN_EFFECTIVE_SAMPLES_PER_SIDE,
        f"The state holds {inside:.0f} effective samples, the rest {outside:.0f}",
        f"and each side needs {MIN_EFFECTIVE_SAMPLES_PER_SIDE}",
        f"{remedies.draw}, or {_continued(remedies.balance)}",
    )


def _largest(metrics: Mapping[str, Any], remedies: Remedies) -> _Check:
    share = metrics["largest_weight_share"]
    return _Check(
        share <= MAX_WEIGHT_SHARE,
        f"One sample has {share:.1%} of the weight on its side of the state",
        f"more than {MAX_WEIGHT_SHARE:.0%}",
        f"{remedies.draw}, or {_continued(remedies.learn)}",
    )


def _rejected(metrics: Mapping[str, Any], remedies: Remedies) -> _Check:
    share = metrics["num_rejected"] / metrics["ess_num_samples"]
    return _Check(
        share <= MAX_REJECTED,
        f"{share:.1%} of the samples are broken or of the wrong chirality and have no weight",
        f"more than {MAX_REJECTED:.0%}",
        f"{remedies.integrate}, or {_continued(remedies.learn)}",
    )


def _model_error(metrics: Mapping[str, Any], remedies: Remedies) -> _Check:
    error = metrics.get("model_error_kT")
    if error is None:
        return _Check(
            False,
            "The error bar is of sampling only",
            "the error of the learned density is not in it",
            f"{remedies.correct}, which measures that",
        )
    return _Check(
        error <= MAX_MODEL_ERROR_KT,
        f"The correction of the learned density adds {error:.3f} kT to the error",
        f"more than {MAX_MODEL_ERROR_KT:.2f} kT",
        f"{remedies.correct}, or train the energy model longer",
    )


def _folds(metrics: Mapping[str, Any], remedies: Remedies) -> _Check:
    """Ask whether folds of the sampler, which exact densities do not see, are of any weight."""
    count, shift = metrics["num_negative_determinants"], metrics["delta_f_fold_shift_kT"]
    total = metrics["num_exact_in_state"] + metrics["num_exact_outside_state"]
    return _Check(
        abs(shift) <= MAX_FOLD_SHIFT_KT,
        f"{count} of {total} samples lie where the sampler folds space, which shifts the estimate "
        f"by {shift:.3f} kT",
        f"more than {MAX_FOLD_SHIFT_KT:.2f} kT",
        f"{remedies.integrate}, or {_continued(remedies.learn)}",
    )


def _forward(metrics: Mapping[str, Any]) -> _Check:
    """Compare what frames of the simulation say of the weights with what samples say of them."""
    ratios = {
        where: metrics[f"forward_ess_{name}"] / metrics[f"reverse_ess_{name}"]
        for name, where in _SIDES.items()
        if metrics[f"reverse_ess_{name}"] > 0
    }
    worst = min(ratios, key=lambda where: ratios[where])
    return _Check(
        ratios[worst] >= MIN_FORWARD_OVER_REVERSE,
        f"Frames of the simulation {worst} are worth {ratios[worst]:.2f} of what the emulator's "
        "samples there are",
        f"less than {MIN_FORWARD_OVER_REVERSE:.1f}: the emulator lacks conformations that the "
        "simulation visits",
        "Train the emulator on more data that hold them (dataset.num_chains, "
        "reference.production_ps), or longer (emulator.num_steps)",
    )


def _unseen(metrics: Mapping[str, Any]) -> _Check:
    """Ask how much of what the simulation visits the emulator hardly draws, by exact densities."""
    shares = {where: metrics[f"unseen_{name}"] for name, where in _SIDES.items()}
    worst = max(shares, key=lambda where: shares[where])
    limit = max(MAX_UNSEEN, metrics["delta_f_stderr_kT"])
    return _Check(
        shares[worst] <= limit,
        f"Of the frames of the simulation {worst} {shares[worst]:.1%} are where the emulator "
        "hardly draws",
        f"more than {limit:.1%}",
        "Train the emulator on more data that hold them (dataset.num_chains, "
        "reference.production_ps), or longer (emulator.num_steps)",
    )


def _reference(metrics: Mapping[str, Any]) -> _Check:
    distance = deviation(
        metrics["delta_f_kT"],
        metrics["delta_f_stderr_kT"],
        metrics["delta_f_reference_kT"],
        metrics["delta_f_reference_stderr_kT"],
    )
    converged = metrics.get("delta_f_reference_converged", True)
    source = metrics.get("delta_f_reference_source", "the reference")
    return _Check(
        not converged or distance <= MAX_DEVIATION,
        f"The estimate is {distance:.1f} combined standard errors from its reference ({source}"
        f"{'' if converged else ', not converged'})",
        f"more than {MAX_DEVIATION:.0f}",
        "Look for what the emulator lacks in the figures, and run the reference longer "
        "(reference.production_ps)",
    )


def _continued(sentence: str) -> str:
    """Return a sentence's beginning as it stands after a comma."""
    return sentence[0].lower() + sentence[1:]
