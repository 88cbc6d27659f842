"""What decides a training run."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from bnce_dist.config.section import (
    Count,
    NonNegative,
    Positive,
    Section,
)
from bnce_dist.core.errors import InputError


class TrainingConfig(Section):
    """How one model is optimised."""

    num_steps: Count = 6000
    """Optimiser steps."""
    global_batch_size: Count = 512
    """Samples per step over all workers; at least the size of the data is the full batch."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; the cosine ends at zero."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights per step; 0 keeps the last weights."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon applies to weight matrices, AdamW to the rest."""
    checkpoint_interval: Count = 500
    """Steps between checkpoints."""
    report_interval: Count = 50
    """Steps one record of the history averages."""

    @model_validator(mode="after")
    def _check_warmup(self) -> "TrainingConfig":
        self.require(
            self.warmup_steps < self.num_steps,
            "warmup_steps below num_steps",
            "warmup_steps",
            "num_steps",
        )
        return self


Optimizer = Literal["adamw", "muon"]
Precision = Literal["fp32", "bf16"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything about the optimisation that changes its result, and how often it reports.

    Args:
        num_steps: Optimiser steps.
        global_batch_size: Samples per step over all workers together, drawn independently; as
            large as the data set or larger, every step uses each sample exactly once.
        learning_rate: Peak learning rate, reached after the warm-up.
        warmup_steps: Steps of linear warm-up.
        schedule: After the warm-up: ``cosine`` to zero, or ``constant``.
        weight_decay: Decoupled weight decay; 0 makes ``adamw`` plain Adam.
        gradient_clip: Largest norm of the gradient; ``None`` does not clip.
        ema_decay: Decay of the averaged weights per step; 0 keeps the last weights.
        optimizer: ``adamw``, or ``muon``: Muon for weight matrices, AdamW for everything else.
        precision: ``fp32``, or ``bf16`` autocast (safe for the emulator, not for an energy model).
        checkpoint_interval: Steps between checkpoints.
        report_interval: Steps a record of the loss history averages over.
        seed: Of the initial weights and of every draw.

    Raises: InputError: a value is out of range.
    """

    num_steps: int
    global_batch_size: int = 512
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    ema_decay: float = 0.999
    optimizer: Optimizer = "adamw"
    precision: Precision = "fp32"
    checkpoint_interval: int = 500
    report_interval: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_steps", "global_batch_size", "checkpoint_interval", "report_interval"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        steps_after_warmup = self.num_steps - self.warmup_steps
        self._require(
            "warmup_steps",
            self.warmup_steps >= 0 and steps_after_warmup > 0,
            f"0 or more, less than num_steps ({self.num_steps})",
        )
        self._require("learning_rate", 0 < self.learning_rate < float("inf"), "a positive number")
        self._require("weight_decay", 0 <= self.weight_decay < float("inf"), "at least 0")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "a number in [0, 1)")
        self._require(
            "gradient_clip",
            self.gradient_clip is None or self.gradient_clip > 0,
            "a positive number or null",
        )
        self._require("optimizer", self.optimizer in get_args(Optimizer), get_args(Optimizer))
        self._require("schedule", self.schedule in get_args(Schedule), get_args(Schedule))
        self._require("precision", self.precision in get_args(Precision), get_args(Precision))

    def _require(self, name: str, accepted: bool, expected: object) -> None:
        if not accepted:
            raise InputError(
                f"training setting {name}",
                expected=expected,
                got=repr(getattr(self, name)),
                remedy=f"change {name} in the configuration",
            )
