"""Everything a run on a planar system can be told; the defaults are our recipe."""

import math
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from bnce_dist.config.section import Count, NonNegative, Positive, Section
from bnce_dist.core.systems import system_from_name
from bnce_dist.generator.architectures import EnergyConfig
from bnce_dist.pipeline.cluster import ClusterConfig
from bnce_dist.pipeline.config import TrackingConfig

Objective = Literal["infonce", "score", "hybrid"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


class PlanarEnergyConfig(EnergyConfig):
    """The energy model and its training with the hybrid objective."""

    architecture: Literal["late_fusion", "concatenated"] = "late_fusion"
    """late_fusion or concatenated: time enters in a last inner product, or as a coordinate."""
    num_steps: Count = 3000
    """Optimiser steps of the hybrid objective."""
    learning_rate: Positive = 6e-3
    """Peak of the schedule."""
    width: Count = 128
    """Hidden features."""
    depth: Count = 3
    """Residual blocks."""
    num_fourier: Annotated[int, Field(ge=0)] = 64
    """Random Fourier features of a point."""
    fourier_scale: Positive = 6.0
    """Standard deviation of their frequencies."""
    score_weight: NonNegative = 1.0
    """Weight of the score-matching loss, a mean over coordinates."""


class StepsConfig(Section):
    """Steps that one objective alone makes in the time of one step of the hybrid."""

    infonce: Positive = 1.7
    """It needs no second derivatives."""
    score: Positive = 1.07
    """It evaluates no negatives."""


class DataConfig(Section):
    """The training set: exact samples."""

    num_samples: Count = 1_000_000
    """Its size; a million is as good as fresh samples, ten thousand can be overfitted."""


class GridConfig(Section):
    """The grid that learned densities are judged on."""

    cells_per_side: Annotated[int, Field(ge=10)] = 100
    """Cells along each side of the square [-2, 2]^2."""


class PlanarTrackingConfig(TrackingConfig):
    """Where one run is recorded besides its folder."""

    backend: Literal["mlflow", "jsonl", "none"] = "none"
    """Where records go: an MLflow store, a file in the run's folder, or nowhere."""
    experiment: str = "bnce_dist_planar"
    """Name of the experiment."""


class PlanarConfig(Section):
    """One system, one objective, one energy model."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    system: str = "gaussians8"
    """Which distribution is learned: gaussians8, checkerboard, two_moons or rings."""
    objective: Objective = "hybrid"
    """Score matching, InfoNCE over times, or the weighted sum of both."""
    recipe: str = "ours"
    """What the rest of the settings is called in tables."""
    data: DataConfig = DataConfig()
    energy: PlanarEnergyConfig = PlanarEnergyConfig()
    steps: StepsConfig = StepsConfig()
    evaluate: GridConfig = GridConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: PlanarTrackingConfig = PlanarTrackingConfig()

    @field_validator("system")
    @classmethod
    def _check_system(cls, name: str) -> str:
        return system_from_name(name).name

    @model_validator(mode="after")
    def _check_weights(self) -> "PlanarConfig":
        for name in ("score", "infonce"):
            is_used = self.objective in (name, "hybrid")
            is_weighted = getattr(self.energy, f"{name}_weight") > 0
            self.require(not is_used or is_weighted, f"energy.{name}_weight above 0", "objective")
        return self

    @property
    def name(self) -> str:
        """What tells runs of one table apart."""
        return f"{self.system}-{self.objective}-{self.recipe}-seed{self.seed}"

    @property
    def energy_of_objective(self) -> PlanarEnergyConfig:
        """The training with the weights and the number of steps that the objective implies."""
        if self.objective == "hybrid":
            return self.energy
        unused = {"infonce": "score_weight", "score": "infonce_weight"}[self.objective]
        num_steps = math.ceil(self.energy.num_steps * getattr(self.steps, self.objective))
        warmup_steps = min(self.energy.warmup_steps, num_steps - 1)
        fewer = {unused: 0.0, "num_steps": num_steps, "warmup_steps": warmup_steps}
        return self.energy.model_copy(update=fewer)

    def shortened(self, factor: int) -> "PlanarConfig":
        """Return the same run with a fraction of the steps and a recipe name that says so."""
        num_steps = max(self.energy.num_steps // factor, 2)
        warmup_steps = min(self.energy.warmup_steps, num_steps // 2)
        fewer = {"num_steps": num_steps, "warmup_steps": warmup_steps}
        energy = self.energy.model_copy(update=fewer)
        return self.model_copy(update={"energy": energy, "recipe": f"{self.recipe}-quick"})
