"""Which models a configuration stands for; every function pickles and runs on any worker."""

from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.nn.concatenated_energy import ConcatenatedEnergy
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.config import EmulatorConfig, EnergyConfig, TrainingConfig
from bnce_dist.training.settings import TrainSettings

ENERGY_MODELS: dict[str, type[EnergyModel]] = {
    model.architecture: model for model in (LateFusionEnergy, ConcatenatedEnergy)
}
"""By the name that configurations and files use."""


def build_path(interpolant: str, num_euclidean: int, num_circular: int) -> ProductPath:
    """Return the path from data to a known density, which is what normalises energy models."""
    return ProductPath(interpolant_from_name(interpolant), num_euclidean, num_circular)


def build_velocity_field(
    config: EmulatorConfig, num_euclidean: int, num_circular: int
) -> InternalVelocity:
    """Return the emulator's network with initial weights."""
    return InternalVelocity(num_euclidean, num_circular, width=config.width, depth=config.depth)


def build_energy_model(config: EnergyConfig, num_euclidean: int, num_circular: int) -> EnergyModel:
    """Return the energy model with initial weights."""
    if config.architecture == ConcatenatedEnergy.architecture:
        return ConcatenatedEnergy(
            num_euclidean,
            num_circular,
            width=config.width,
            depth=config.depth,
            num_fourier=config.num_fourier,
            fourier_scale=config.fourier_scale,
        )
    return LateFusionEnergy(
        num_euclidean,
        num_circular,
        interpolant=config.interpolant,
        width=config.width,
        depth=config.depth,
        num_features=config.num_features,
        num_fourier=config.num_fourier,
        fourier_scale=config.fourier_scale,
        time_exponent=config.time_exponent,
    )


def build_flow_matching(
    config: EmulatorConfig, num_euclidean: int, num_circular: int
) -> FlowMatching:
    """Return the emulator's objective around a new network."""
    return FlowMatching(
        build_velocity_field(config, num_euclidean, num_circular),
        build_path(config.interpolant, num_euclidean, num_circular),
        time_exponent=config.time_exponent,
    )


def build_energy_matching(
    config: EnergyConfig, num_euclidean: int, num_circular: int
) -> EnergyMatching:
    """Return the energy model's objective around a new model."""
    return EnergyMatching(
        build_energy_model(config, num_euclidean, num_circular),
        build_path(config.interpolant, num_euclidean, num_circular),
        score_weight=config.score_weight,
        infonce_weight=config.infonce_weight,
        num_negatives=config.num_negatives,
        negatives=config.negatives,
        time_exponent=config.time_exponent,
    )


def train_settings(config: EmulatorConfig | EnergyConfig, seed: int) -> TrainSettings:
    """Return the optimiser's part of a model's configuration."""
    names = set(TrainingConfig.model_fields)
    return TrainSettings(**config.model_dump(include=names), precision=config.precision, seed=seed)
