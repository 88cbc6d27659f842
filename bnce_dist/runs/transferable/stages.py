"""The stages in which a run of one Cartesian field for many molecules differs."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import CenteredCartesian
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching, pack_conformations
from bnce_dist.core.random import generator
from bnce_dist.core.space import NodeFeatures
from bnce_dist.core.weights import Weights
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.shared_architectures import (
    TransferableConfig,
    build_field,
    build_molecular_matching,
    molecular_matching,
)
from bnce_dist.generator.unseen import leave_unseen_length
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.pipeline.results import HeldOut
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model
from bnce_dist.runs.transferable.internal import training_positions


def train_field(context: StageContext) -> None:
    """Train one field on the data sets of all inputs, which are named by their molecules.

    Leaves ``emulator.pt``, in which the field is bound to the first of them.
    """
    config, seed = context.config.transferable, context.config.seed
    molecules = [Molecule.from_sequence(name) for name in context.inputs]
    positions = [
        training_positions(folder, molecule, seed)
        for folder, molecule in zip(context.inputs.values(), molecules, strict=True)
    ]
    scale_nm = common_scale(positions)
    features = [config.feature_set.of_molecule(molecule) for molecule in molecules]
    field = build_field(config, features[0].shape[1])
    fit_model(
        context,
        "emulator",
        config,
        field,
        partial(build_molecular_matching, config, [one.tolist() for one in features]),
        [_packed(positions, scale_nm)],
    )
    emulator = Emulator(
        molecules[0].identity,
        CenteredCartesian(molecules[0].num_atoms, scale_nm),
        MeanFreeVelocity(field, features[0]),
        config.num_ode_steps,
        config.ode_time_exponent,
        config.interpolant,
    )
    emulator.save(context.folder / "emulator.pt")
    context.tracker.log_model("emulator", context.folder / "emulator.pt")


def bind_field(context: StageContext) -> None:
    """Leave ``emulator.pt`` of a molecule that the field has never seen, and how it was trained.

    What follows says so where it has not seen a chain of that length either.
    """
    taught = context.config.transferable.training_molecules
    leave_unseen_length(context.folder, context.target.molecule, taught)
    field = context.inputs["field"]
    emulator = Emulator.load(field / "emulator.pt").of_molecule(context.target.molecule)
    emulator.save(context.folder / "emulator.pt")
    shutil.copy(field / "history.json", context.folder / "history.json")


def adopt_reference(context: StageContext) -> None:
    """Leave ``reference`` as the zero-shot run computed it."""
    source = context.inputs["zero_shot_reference"] / "reference"
    shutil.copytree(source, context.folder / "reference", dirs_exist_ok=True)


def fine_tune(context: StageContext) -> None:
    """Train the field on its own samples of the molecule, reweighted; leave ``emulator.pt``."""
    config = context.config
    path = context.inputs["zero_shot_emulator"] / "emulator.pt"
    emulator = Emulator.load(path, molecule_identity=context.target.molecule.identity)
    field, scale_nm = emulator.cartesian_field()
    features = config.transferable.feature_set.of_molecule(context.target.molecule).tolist()
    fit_model(
        context,
        "emulator",
        config.fine_tuning,
        field,
        partial(build_matching_from, path, config.transferable, features),
        [_packed([_reweighted_positions(context)], scale_nm)],
    )
    emulator.save(context.folder / "emulator.pt")
    context.tracker.log_model("emulator", context.folder / "emulator.pt")


def build_matching_from(
    path: Path, config: TransferableConfig, node_features: NodeFeatures
) -> MolecularFlowMatching:
    """Return the objective of one molecule around the field of an emulator's file."""
    field, _ = Emulator.load(path).cartesian_field()
    return molecular_matching(config, field, [node_features])


def common_scale(positions_nm: list[Tensor]) -> float:
    """Return the standard deviation per mean-free coordinate over all molecules' frames [nm].

    Args:
        positions_nm: Of each molecule, ``(frames, atoms, 3)`` [nm].
    """
    squares = [_centred(positions).double().square().sum() for positions in positions_nm]
    counts = [len(positions) * 3 * (positions.shape[1] - 1) for positions in positions_nm]
    return float(torch.stack(squares).sum() / sum(counts)) ** 0.5


def _reweighted_positions(context: StageContext) -> Tensor:
    """Draw as many molecules as the zero-shot run evaluated, by their clipped weights."""
    folder = context.inputs["zero_shot_evaluation"]
    held_out = HeldOut.read(folder, context.target)
    weights = Weights(held_out.samples.log_weights)
    clipped, _ = weights.clipped(context.config.evaluate.clip_fraction)
    context.tracker.log_metrics({"fine_tuning_ess": clipped.ess})
    rows = torch.multinomial(
        torch.from_numpy(clipped.normalised),
        clipped.num_samples,
        replacement=True,
        generator=generator(context.config.seed, "fine tuning"),
    )
    positions = held_out.dataset.load(["positions_nm"])["positions_nm"]
    return torch.from_numpy(positions)[rows]


def _packed(positions_nm: list[Tensor], scale_nm: float) -> np.ndarray:
    return pack_conformations([_centred(x) / scale_nm for x in positions_nm]).float().numpy()


def _centred(positions_nm: Tensor) -> Tensor:
    return positions_nm - positions_nm.mean(1, keepdim=True)
