"""Everything a sweep can be told."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bnce_dist.config.section import Count, Fraction, Place, Section
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.config import TrackingConfig
from bnce_dist.runs.sweep.space import Dimension

logger = logging.getLogger(__name__)

Mode = Literal["min", "max"]


class AshaConfig(Section):
    """Asynchronous successive halving: trials that fall behind are stopped early."""

    grace_steps: Count = 500
    """Training steps before a trial can be stopped."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """Of so many trials that come as far, one goes on to so many times the steps."""


class PbtConfig(Section):
    """Population-based training: trials that fall behind go on from better ones."""

    interval_steps: Count = 500
    """Training steps between a trial's comparisons with the others."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the trials that counts as behind, and as better."""
    resample_probability: Fraction = 0.25
    """Probability that a setting is drawn anew, not moved by a fifth."""


class SweepConfig(Section):
    """Trials of one job whose settings come from a space."""

    job: Literal["planar", "train"] = "planar"
    """What a trial runs: ``bnce planar`` or ``bnce train``."""
    config: Place | None = None
    """Configuration file of the job; null takes the job's defaults."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Settings of the job, over those of the file, that all trials share."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """Values to try by the dotted name of the setting."""
    metric: str = "kl_normalised"
    """Name of the number in the job's ``metrics.json`` that trials are judged by."""
    mode: Mode = "min"
    """Whether the metric should be small or large."""
    scheduler_metric: str | None = None
    """Number in the records of training that the scheduler judges by; null is the metric."""
    scheduler_mode: Mode | None = None
    """Whether that number should be small or large; null is the mode."""
    num_trials: Count = 12
    """Trials altogether."""
    searcher: Literal["random", "optuna"] = "random"
    """Where settings come from: independent draws, or Optuna's tree-structured Parzen estimator."""
    scheduler: Literal["none", "asha", "pbt"] = "asha"
    """What happens to trials that fall behind."""
    asha: AshaConfig = AshaConfig()
    pbt: PbtConfig = PbtConfig()
    max_concurrent: Count | None = None
    """Trials at a time; null is as many as the cluster holds."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draws from the space; the job has its own."""
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("job", mode="before")
    @classmethod
    def _rename_job(cls, job: Any) -> Any:
        if job == "toy":
            logger.warning("the job toy of sweeps is now called planar")
        return "planar" if job == "toy" else job

    @field_validator("space", mode="before")
    @classmethod
    def _flatten_space(cls, space: Any) -> Any:
        return _dotted_dimensions(space) if isinstance(space, Mapping) else space

    @property
    def judged_by(self) -> tuple[str, Mode]:
        """The scheduler's metric and mode."""
        return self.scheduler_metric or self.metric, self.scheduler_mode or self.mode


def dotted(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _dotted_dimensions(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the dimensions by dotted names; sections may be nested or part of the name."""
    flat: dict[str, Any] = {}
    for name, value in space.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping) or not value:
            raise _not_a_dimension(key, value)
        if all(isinstance(child, Mapping) for child in value.values()):
            flat |= _dotted_dimensions(value, f"{key}.")
        elif value.keys() <= Dimension.model_fields.keys():
            flat[key] = value
        else:
            raise _not_a_dimension(key, value)
    return flat


def _not_a_dimension(key: str, value: Any) -> InputError:
    return InputError(
        f"sweep key space.{key}",
        expected=f"one of {', '.join(Dimension.model_fields)} with its values",
        got=repr(value),
        remedy="correct the sweep, e.g. energy.learning_rate: {log_uniform: [1e-4, 1e-2]}",
    )
