"""Which models a configuration stands for; every function pickles and runs on any worker."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from bnce_dist.chem.coordinates import ZMatrix
from bnce_dist.chem.coordinates.straight import require_bent
from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import Blocks, shared_zmatrix
from bnce_dist.chem.feature_sets import (
    DIPEPTIDE,
    FEATURE_SETS,
    PEPTIDE,
    FeatureSet,
    FeatureSetName,
    feature_set_for,
)
from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.section import Count, Interpolant, Names, NonNegative, Positive, Section
from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import NodeFeatures, Space, Tokens, num_stiff_of
from bnce_dist.core.token_energy_matching import TokenEnergyMatching
from bnce_dist.core.token_flow_matching import TokenFlowMatching
from bnce_dist.nn.concatenated_energy import ConcatenatedEnergy
from bnce_dist.nn.distance_energy import DistanceEnergy
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.graphormer import GraphormerEnergy
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.tokens import TokenEnergy, TokenField, TokenVelocity
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


class TransferableConfig(TrainingConfig):
    """One flow for many molecules (--transferable), trained on others: in Cartesian coordinates, or
    in internal ones, whose network has a section of its own, `token_field`."""

    left_out_unset = frozenset({"features", "internal", "field", "without_simulation"})

    internal: bool = False
    """Whether the coordinates are bonds, angles and torsions; the settings of layers, scalars,
    vectors, features and the coupling are then not used."""

    training_molecules: Names = (
        "AR", "RN", "ND", "DC", "CQ", "QE", "EG", "GH", "HI", "IL",
        "LK", "KM", "MF", "FV", "PT", "ST", "TW", "WY", "YS", "VA",
    )  # fmt: skip
    """Peptides that the field learns from, of any lengths; none of those it is asked about."""
    field: str | None = None
    """File of a trained field (`shared_emulator.pt`), which is asked as it is: nothing is trained,
    and `training_molecules` are those that it names; of one in internal coordinates."""
    without_simulation: bool = False
    """Whether those that it is asked about are not even simulated to be compared with (with
    `internal`)."""
    features: FeatureSetName | None = None
    """What tells atoms apart: `dipeptide`, the published features of two amino acids without caps,
    or `peptide`, those of any; unset is the first if all `training_molecules` are such."""
    num_steps: Count = 100_000
    """Optimiser steps."""
    global_batch_size: Count = 256
    """Samples per step over all workers, of all molecules mixed."""
    num_layers: Count = 5
    """Rounds of messages between atoms."""
    num_scalars: Count = 64
    """Scalars of an atom."""
    num_vectors: Count = 16
    """Vectors of an atom."""
    interpolant: Interpolant = "linear"
    """Path of the coordinates; both end in a standard normal."""
    coupling: Literal["independent", "optimal_transport", "kabsch"] = "kabsch"
    """What noise goes with what data: any, the nearest of the batch, or rotated onto it."""
    time_exponent: Positive = 1.0
    """Training times are u^exponent with u uniform."""
    num_ode_steps: Count = 25
    """Midpoint steps of the sampler."""
    ode_time_exponent: Positive = 1.0
    """Above 1 the sampler's steps shorten towards the data."""

    @property
    def feature_set(self) -> FeatureSet:
        """What tells the atoms of all molecules apart."""
        if self.internal:
            return PEPTIDE
        if self.features is not None:
            return FEATURE_SETS[self.features]
        return feature_set_for(self.training_molecules)


class TokenFieldConfig(Section):
    """The network of `transferable.internal`: a transformer over the atoms of any molecule."""

    width: Count = 64
    """Channels of an atom."""
    depth: Count = 4
    """Layers."""
    num_heads: Count = 4
    """Heads of the attention; they divide the width."""
    blocks: Blocks = "centre"
    """Stiff coordinates that are whitened together, by type: each `coordinate` alone, or all about
    one `centre`."""

    @model_validator(mode="after")
    def _check_heads(self) -> "TokenFieldConfig":
        self.require(
            self.width % self.num_heads == 0, "width a multiple of num_heads", "width", "num_heads"
        )
        return self


class FineTuningConfig(TrainingConfig):
    """How the transferable field goes on learning from its reweighted samples of one molecule."""

    num_steps: Count = 2000
    """Optimiser steps."""
    global_batch_size: Count = 256
    """Samples per step over all workers."""
    learning_rate: Positive = 2e-4
    """Peak of the schedule."""


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


class SharedEnergyConfig(EnergyConfig):
    """One energy model of all molecules' samples (with `transferable.internal`), instead of one for
    each molecule that is asked about."""

    enabled: bool = False
    """Whether there is one."""
    fine_tunes: bool = True
    """Whether molecules that are asked about get a second run, in which it goes on learning from
    their own samples as `fine_tuning` says."""
    samples_per_molecule: Count = 4000
    """The field's samples of each training molecule that it learns from."""
    num_steps: Count = 5000
    """Optimiser steps."""
    global_batch_size: Count = 256
    """Samples per step over all workers, of all molecules mixed."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule."""
    architecture: Literal["tokens"] = "tokens"
    """Attention over atoms, and time in a last inner product."""
    width: Count = 64
    """Channels of an atom, a multiple of 16."""
    depth: Count = 4
    """Layers."""


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
_TIME_WARP = 2.0
# In standard deviations of the data, about 0.2 nm.
_MAX_DISTANCE, _STEP_SIZE = 8.0, 5.0


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
        time_exponent=_TIME_WARP,
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


def build_field(config: TransferableConfig, num_node_features: int) -> GVPVectorField:
    """Return the transferable field with initial weights."""
    return GVPVectorField(
        num_node_features,
        interpolant=config.interpolant,
        num_layers=config.num_layers,
        num_scalars=config.num_scalars,
        num_vectors=config.num_vectors,
        max_distance=_MAX_DISTANCE,
        step_size=_STEP_SIZE,
    )


def molecular_matching(
    config: TransferableConfig, field: GVPVectorField, node_features: Sequence[NodeFeatures]
) -> MolecularFlowMatching:
    """Return the objective of a field, for molecules of these features."""
    return MolecularFlowMatching(
        field,
        interpolant_from_name(config.interpolant),
        [torch.tensor(features) for features in node_features],
        coupling=COUPLINGS[config.coupling],
        time_exponent=config.time_exponent,
    )


def build_molecular_matching(
    config: TransferableConfig, node_features: Sequence[NodeFeatures]
) -> MolecularFlowMatching:
    """Return the transferable field's objective around a new field."""
    field = build_field(config, len(node_features[0][0]))
    return molecular_matching(config, field, node_features)


def build_token_field(config: TokenFieldConfig, tokens: Tokens) -> TokenField:
    """Return the field of `transferable.internal` with initial weights.

    Args:
        config: Its sizes.
        tokens: Of any molecule.
    """
    return TokenField(
        len(tokens["features"][0]),
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        time_exponent=_TIME_WARP,
    )


def build_token_matching(
    config: TransferableConfig, field: TokenFieldConfig, tokens: Sequence[Tokens]
) -> TokenFlowMatching:
    """Return the objective of a new field of many molecules in internal coordinates."""
    return TokenFlowMatching(
        build_token_field(field, tokens[0]),
        interpolant_from_name(config.interpolant),
        tokens,
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
    return EnergyMatching(energy_model, path, **_objective_options(config))


def build_shared_energy(config: SharedEnergyConfig, tokens: Tokens) -> TokenEnergy:
    """Return the energy model of many molecules with initial weights, bound to one of them."""
    model = build_energy_model(config, Space(num_stiff_of(tokens), tokens=tokens))
    assert isinstance(model, TokenEnergy)
    return model


def build_shared_energy_matching(
    config: SharedEnergyConfig, tokens: Sequence[Tokens]
) -> TokenEnergyMatching:
    """Return the objective of a new energy model of many molecules."""
    return TokenEnergyMatching(
        build_shared_energy(config, tokens[0]),
        interpolant_from_name(config.interpolant),
        tokens,
        **_objective_options(config),
    )


def _objective_options(config: EnergyConfig) -> dict[str, Any]:
    names = ("score_weight", "infonce_weight", "num_negatives", "negatives", "time_exponent")
    return {name: getattr(config, name) for name in names}
