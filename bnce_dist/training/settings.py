"""What decides a training run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bnce_dist.config.section import Count, NonNegative, Positive, Section


class TrainingConfig(Section):
    """How one model is optimised."""

    num_steps: Count
    """Optimiser steps."""
    global_batch_size: Count = 512
    """Samples per step over all workers, drawn independently; as large as the data or larger, every
    step uses each sample exactly once."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; the cosine ends at zero."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay; 0 makes AdamW plain Adam."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights per step; 0 keeps the last weights."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon applies to weight matrices, AdamW to the rest."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 is autocast."""
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

    def with_seed(self, seed: int) -> "TrainSettings":
        """Return the settings of one training, without those of the model.

        Args:
            seed: Of the run.
        """
        return TrainSettings(**self.model_dump(include=set(TrainingConfig.model_fields)), seed=seed)


class TrainSettings(TrainingConfig):
    """Everything that decides one training, given its objective and data."""

    seed: int = 0
    """Seed of the initial weights and of every draw."""
