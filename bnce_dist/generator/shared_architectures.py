"""Which models of many molecules a configuration stands for; every function runs on any worker."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import model_validator

from bnce_dist.chem.coordinates.types import Blocks
from bnce_dist.chem.feature_sets import (
    FEATURE_SETS,
    PEPTIDE,
    FeatureSet,
    FeatureSetName,
    feature_set_for,
)
from bnce_dist.config.section import Count, Interpolant, Names, Positive, Section
from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.core.interpolant import interpolant_from_name
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching
from bnce_dist.core.space import NodeFeatures, Space, Tokens, num_stiff_of
from bnce_dist.core.token_energy_matching import TokenEnergyMatching
from bnce_dist.core.token_flow_matching import TokenFlowMatching
from bnce_dist.generator.architectures import (
    TIME_WARP,
    EnergyConfig,
    build_energy_model,
    objective_options,
)
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.tokens import TokenEnergy, TokenField
from bnce_dist.training.settings import TrainingConfig

# In standard deviations of the data, about 0.2 nm.
_MAX_DISTANCE, _STEP_SIZE = 8.0, 5.0


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
    """File of a trained field (`shared_emulator.pt` or `shared_generator.pt`), which is asked as it
    is: nothing is trained, and `training_molecules` are those that it names; of one in internal
    coordinates."""
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
        time_exponent=TIME_WARP,
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
        **objective_options(config),
    )
