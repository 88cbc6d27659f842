"""Which models a configuration stands for; every function pickles and runs on any worker."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bnce_dist.chem.coordinates import ZMatrix
from bnce_dist.chem.coordinates.straight import require_bent
from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import shared_zmatrix
from bnce_dist.chem.feature_sets import (
    DIPEPTIDE,
    FeatureSet,
)
from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.section import Count, Interpolant, NonNegative, Positive
from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import Space
from bnce_dist.nn.concatenated_energy import ConcatenatedEnergy
from bnce_dist.nn.distance_energy import DistanceEnergy
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.graphormer import GraphormerEnergy
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.tokens import TokenEnergy, TokenVelocity
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.training.settings import TrainingConfig


class EmulatorConfig(TrainingConfig):
    """The flow that draws samples, in whitened internal coordinates."""

    num_steps: Count = 4500
    """Optimiser steps."""
    learning_rate: Positive = 2e-3
    """Peak of the schedule."""
    width: Count = 256
    """Hidden features."""
    depth: Count = 4
    """Residual blocks."""
    interpolant: Interpolant = "trigonometric"
    """Path of the Euclidean coordinates; both end in a standard normal."""
    time_exponent: Positive = 1.0
    """Training times are u^exponent with u uniform."""
    num_ode_steps: Count = 12
    """Midpoint steps of the sampler."""
    ode_time_exponent: Positive = 1.5
    """Above 1 the sampler's steps shorten towards the data."""


class EnergyConfig(TrainingConfig):
    """The energy model that gives the emulator's density in one forward pass."""

    num_steps: Count = 2000
    """Optimiser steps."""
    learning_rate: Positive = 2e-3
    """Peak of the schedule."""
    architecture: str = "late_fusion"
    """In internal coordinates late_fusion or concatenated: time enters the network in a last inner
    product, or as one more coordinate. In Cartesian ones distance or graphormer: messages over
    distances with time in a last inner product, or the published attention. With
    `transferable.internal` also tokens: attention over atoms, and time in a last inner product."""
    width: Count = 256
    """Hidden features."""
    depth: Count = 4
    """Residual blocks or layers, or rounds of messages."""
    num_features: Count = 128
    """Features of a point that times are fused with, in late fusion."""
    num_fourier: Annotated[int, Field(ge=0)] = 0
    """Random Fourier features of the Euclidean coordinates."""
    fourier_scale: Positive = 1.0
    """Standard deviation of their frequencies: the inverse of the length to be resolved."""
    interpolant: Interpolant = "trigonometric"
    """Path of the Euclidean coordinates; both end in a standard normal."""
    score_weight: NonNegative = 60.0
    """Weight of the score-matching loss, a mean over coordinates."""
    infonce_weight: NonNegative = 2.0
    """Weight of the InfoNCE loss."""
    num_negatives: Count = 128
    """Other times each point is compared with."""
    negatives: Literal["stratified", "independent"] = "stratified"
    """One time per stratum, common to all points, or independent times for every point."""
    time_exponent: Positive = 2.5
    """Training times are u^exponent with u uniform."""
    precision: Literal["fp32"] = "fp32"
    """Arithmetic; bf16 would cost the log density 0.1 kT and more."""

    @field_validator("architecture")
    @classmethod
    def _check_architecture(cls, name: str) -> str:
        if name not in ENERGY_MODELS:
            raise InputError.unknown("configuration key energy.architecture", name, ENERGY_MODELS)
        return name

    @model_validator(mode="after")
    def _check_weights(self) -> "EnergyConfig":
        self.require(
            self.score_weight + self.infonce_weight > 0,
            "one of the two weights above zero",
            "score_weight",
            "infonce_weight",
        )
        return self


VelocityModel = InternalVelocity | MeanFreeVelocity | TokenVelocity
"""A velocity field bound to one molecule, as an emulator holds it."""

VELOCITY_MODELS: dict[str, Callable[..., VelocityModel]] = {
    InternalVelocity.architecture: InternalVelocity,
    MeanFreeVelocity.architecture: MeanFreeVelocity.from_config,
    TokenVelocity.architecture: TokenVelocity.from_config,
}
"""What builds a velocity model from its ``config()``, by the name that files use."""

ENERGY_MODELS: dict[str, type[EnergyModel]] = {
    model.architecture: model
    for model in (
        LateFusionEnergy,
        ConcatenatedEnergy,
        DistanceEnergy,
        GraphormerEnergy,
        TokenEnergy,
    )
}
"""By the name that configurations and files use."""

# Of the velocity field's time features. The objective draws its times uniformly; features warped
# like that, by 1, were measured to be neither better nor worse.
TIME_WARP = 2.0


def space_of(
    molecule: Molecule,
    *,
    is_cartesian: bool,
    has_tokens: bool = False,
    features: FeatureSet = DIPEPTIDE,
) -> Space:
    """Return the space that a molecule's models live in.

    Args:
        molecule: The molecule.
        is_cartesian: Whether its coordinates are Cartesian, else internal.
        has_tokens: Whether models of many molecules see its internal coordinates.
        features: What tells atoms apart in Cartesian coordinates.

    Raises: InputError: Cartesian, and a molecule that has no such features; internal, and one with
        a group on a straight line.
    """
    if is_cartesian:
        return Space.of_atoms(features.of_molecule(molecule).tolist())
    zmatrix = (
        shared_zmatrix(molecule)
        if has_tokens
        else ZMatrix.from_graph(molecule.elements, molecule.bonds)
    )
    require_bent(molecule, zmatrix)
    num_circular = sum(zmatrix.circular)
    tokens = tokens_of(molecule, zmatrix) if has_tokens else None
    return Space(3 * molecule.num_atoms - 6 - num_circular, num_circular, tokens=tokens)


def build_path(interpolant: str, space: Space) -> ProductPath:
    """Return the path from data to a known density, which is what normalises energy models."""
    schedules = interpolant_from_name(interpolant)
    return ProductPath(schedules, space.num_euclidean, space.num_circular)


def build_velocity_field(config: EmulatorConfig, space: Space) -> InternalVelocity:
    """Return the emulator's network with initial weights."""
    return InternalVelocity(
        space.num_euclidean,
        space.num_circular,
        width=config.width,
        depth=config.depth,
        time_exponent=TIME_WARP,
    )


def build_energy_model(config: EnergyConfig, space: Space) -> EnergyModel:
    """Return the energy model with initial weights.

    Its constructor is given what it asks for by name, of the space and of the settings.

    Raises: InputError: an architecture for other coordinates, or of an impossible width.
    """
    require_architecture(
        config, is_cartesian=space.is_cartesian, has_tokens=space.tokens is not None
    )
    model = ENERGY_MODELS[config.architecture]
    given = vars(space) | dict(config)
    return model(**{name: given[name] for name in _arguments(model) if name in given})


def require_architecture(
    config: EnergyConfig, *, is_cartesian: bool, has_tokens: bool = False
) -> None:
    """Refuse an energy model that was not made for a run's coordinates.

    Raises: InputError: it was not.
    """
    names = [
        name
        for name, model in ENERGY_MODELS.items()
        if ("node_features" in _arguments(model)) == is_cartesian
        and (has_tokens or "tokens" not in _arguments(model))
    ]
    if config.architecture not in names:
        raise InputError(
            f"energy.architecture in {'Cartesian' if is_cartesian else 'internal'} coordinates",
            expected=" or ".join(names),
            got=config.architecture,
            remedy=f"set energy.architecture={names[0]}"
            + ("" if is_cartesian else ", or train one Cartesian field by --transferable"),
        )


def _arguments(model: type[EnergyModel]) -> set[str]:
    return set(inspect.signature(model.__init__).parameters)


def build_flow_matching(config: EmulatorConfig, space: Space) -> FlowMatching:
    """Return the emulator's objective around a new network."""
    return FlowMatching(
        build_velocity_field(config, space),
        build_path(config.interpolant, space),
        time_exponent=config.time_exponent,
    )


def build_energy_matching(config: EnergyConfig, space: Space) -> EnergyMatching:
    """Return the energy model's objective around a new model (see ``build_energy_model``)."""
    return energy_matching(config, build_energy_model(config, space), space)


def energy_matching(
    config: EnergyConfig, energy_model: EnergyModel, space: Space
) -> EnergyMatching:
    """Return the objective around an energy model."""
    path = build_path(config.interpolant, space)
    return EnergyMatching(energy_model, path, **objective_options(config))


def objective_options(config: EnergyConfig) -> dict[str, Any]:
    """Return what the objective of an energy model is told besides the model and its path."""
    names = ("score_weight", "infonce_weight", "num_negatives", "negatives", "time_exponent")
    return {name: getattr(config, name) for name in names}
