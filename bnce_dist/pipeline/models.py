"""Which models a configuration stands for; every function pickles and runs on any worker."""

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.config import EmulatorConfig, EnergyConfig, TrainingConfig
from bnce_dist.training.settings import TrainSettings


def build_path(num_euclidean: int, num_circular: int) -> ProductPath:
    """Return the path all models of the pipeline share.

    The trigonometric interpolant makes the density at t = 1 a known one, which is what
    normalises the energy model.
    """
    return ProductPath(TrigonometricInterpolant(), num_euclidean, num_circular)


def build_velocity_field(
    config: EmulatorConfig, num_euclidean: int, num_circular: int
) -> InternalVelocity:
    """Return the emulator's network with initial weights."""
    return InternalVelocity(num_euclidean, num_circular, width=config.width, depth=config.depth)


def build_energy_model(
    config: EnergyConfig, num_euclidean: int, num_circular: int
) -> LateFusionEnergy:
    """Return the energy model with initial weights."""
    return LateFusionEnergy(
        num_euclidean,
        num_circular,
        width=config.width,
        depth=config.depth,
        num_features=config.num_features,
        time_exponent=config.time_exponent,
    )


def build_flow_matching(
    config: EmulatorConfig, num_euclidean: int, num_circular: int
) -> FlowMatching:
    """Return the emulator's objective around a new network."""
    return FlowMatching(
        build_velocity_field(config, num_euclidean, num_circular),
        build_path(num_euclidean, num_circular),
        time_exponent=config.time_exponent,
    )


def build_energy_matching(
    config: EnergyConfig, num_euclidean: int, num_circular: int
) -> EnergyMatching:
    """Return the energy model's objective around a new model."""
    return EnergyMatching(
        build_energy_model(config, num_euclidean, num_circular),
        build_path(num_euclidean, num_circular),
        score_weight=config.score_weight,
        infonce_weight=config.infonce_weight,
        num_negatives=config.num_negatives,
        time_exponent=config.time_exponent,
    )


def train_settings(config: EmulatorConfig | EnergyConfig, seed: int) -> TrainSettings:
    """Return the optimiser's part of a model's configuration."""
    names = set(TrainingConfig.model_fields)
    return TrainSettings(**config.model_dump(include=names), precision=config.precision, seed=seed)
