"""Everything a run on a pretrained field can be told; the defaults are alanine dipeptide."""

from typing import Annotated, Literal

from pydantic import Field

from bnce_dist.config.section import Count, Place, Positive, Section
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.architectures import EnergyConfig
from bnce_dist.generator.metrics import WeightingConfig
from bnce_dist.generator.target import TargetConfig
from bnce_dist.pipeline.cluster import ClusterConfig
from bnce_dist.runs.pretrained.field import TIME_EXPONENT


class PretrainedTargetConfig(TargetConfig):
    """The molecule, and the Boltzmann distribution that samples are weighted to."""

    potential: Literal["xtb", "force_field"] = "xtb"
    """GFN2-xTB in implicit water (needs tblite), or the force field."""


class PretrainedSamplesConfig(Section):
    """The field's samples."""

    num_steps: Count = 10
    """Midpoint steps from noise to data."""
    time_exponent: Positive = TIME_EXPONENT
    """Above 1 the steps shorten towards the data."""
    batch_size: Count = 64
    """Samples at a time; it does not alter them."""
    num_training: Count = 60_000
    """Samples the energy model learns from; with a fifth of them it learns them by overfitting."""
    num_relabelled: Count = 8
    """Copies of each in the training data, with other labels of equivalent hydrogens."""
    num_held_out: Annotated[int, Field(ge=100)] = 5_000
    """Samples that are weighted."""
    shard_size: Count = 500
    """Samples per shard."""


class PretrainedEnergyConfig(EnergyConfig):
    """The energy model that gives the samples' density, in internal coordinates."""

    num_steps: Count = 3000
    """Optimiser steps."""


class PretrainedEvaluateConfig(WeightingConfig):
    """What the weights are turned into; the defaults are what xTB can do in an hour."""

    num_exact: Annotated[int, Field(ge=10)] = 600
    """Of the samples, the first ones get an exact likelihood, two CPU-seconds each, which corrects
    the learned one."""
    annealing: AnnealingConfig = AnnealingConfig(num_levels=30, num_pilot=60)


class PretrainedConfig(Section):
    """One pretrained field, one molecule, one target."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    weights: Place = "unweighted_ot_ema.pt"
    """Path of the field's file, under its published name."""
    target: PretrainedTargetConfig = PretrainedTargetConfig()
    samples: PretrainedSamplesConfig = PretrainedSamplesConfig()
    energy: PretrainedEnergyConfig = PretrainedEnergyConfig()
    evaluate: PretrainedEvaluateConfig = PretrainedEvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
