"""The stages of a field for many molecules in internal coordinates."""

import logging
import shutil
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import StiffTypes
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.training_data import permute_equivalent_hydrogens
from bnce_dist.core.padded_tokens import pack_vectors
from bnce_dist.core.random import generator
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.shared_architectures import build_token_field, build_token_matching
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.shared_generator import load_field
from bnce_dist.generator.unseen import leave_unseen_length, leave_unseen_types
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model

logger = logging.getLogger(__name__)

FILE_NAME = "shared_emulator.pt"
HISTORY = "history.json"


def train_field(context: StageContext) -> None:
    """Train one field on the data sets of all inputs, which are named by their molecules.

    Leaves ``shared_emulator.pt``. Frames with a torsion that does not turn in another basin, which
    are cis peptide bonds, are not learned from.
    """
    config, sizes, seed = (
        context.config.transferable,
        context.config.token_field,
        context.config.seed,
    )
    molecules = [Molecule.from_sequence(name) for name in context.inputs]
    positions = [
        training_positions(folder, molecule, seed)
        for folder, molecule in zip(context.inputs.values(), molecules, strict=True)
    ]
    types = StiffTypes.fit(molecules, positions, sizes.blocks)
    bound = [types.coordinates(molecule, {})[0] for molecule in molecules]
    tokens = [
        tokens_of(molecule, coordinates.zmatrix)
        for molecule, coordinates in zip(molecules, bound, strict=True)
    ]
    vectors = [
        coordinates.encode(frames[coordinates.in_basin(frames)])[0].float()
        for coordinates, frames in zip(bound, positions, strict=True)
    ]
    field = build_token_field(sizes, tokens[0])
    fit_model(
        context,
        "emulator",
        config,
        field,
        partial(build_token_matching, config, sizes, tokens),
        [pack_vectors(vectors, tokens).numpy()],
    )
    shared = SharedEmulator(
        types,
        field,
        tuple(context.inputs),
        read_json(context.folder / HISTORY),
        config.num_ode_steps,
        config.ode_time_exponent,
        config.interpolant,
    )
    shared.save(context.folder / FILE_NAME)
    context.tracker.log_model("emulator", context.folder / FILE_NAME)


def adopt_field(context: StageContext) -> None:
    """Leave ``shared_emulator.pt`` as it was given, and how it was trained."""
    shared, _ = load_field(Path(str(context.config.transferable.field)))
    shared.save(context.folder / FILE_NAME)
    write_json(context.folder / HISTORY, shared.history)


def simulate_nothing(context: StageContext) -> None:
    """Leave nothing: there will be no reference to compare with."""


def bind_field(context: StageContext) -> None:
    """Leave ``emulator.pt`` of a molecule that the field has never seen, and how it was trained.

    What follows says so where a length, or a bond, an angle or a torsion, is new to it.
    """
    taught, molecule = context.config.transferable.training_molecules, context.target.molecule
    field = context.inputs["field"]
    emulator, unknown = SharedEmulator.load(field / FILE_NAME).of_molecule(context.target)
    if unknown:
        logger.warning(
            "%s: %d types of stiff coordinates are in no training molecule, e.g. %s; they have the "
            "force field's values",
            molecule.name,
            len(unknown),
            unknown[0],
        )
    leave_unseen_length(context.folder, molecule, taught)
    leave_unseen_types(context.folder, unknown)
    emulator.save(context.folder / "emulator.pt")
    shutil.copy(field / HISTORY, context.folder / HISTORY)


def training_positions(folder: Path, molecule: Molecule, seed: int) -> Tensor:
    """Return the frames of a data set, ``(frames, atoms, 3)`` [nm], with hydrogens relabelled.

    Args:
        folder: Of the stage that left it.
        molecule: Of the data.
        seed: Of the run.
    """
    dataset = ShardedDataset.open(folder / "dataset", molecule=molecule.identity)
    positions = torch.from_numpy(dataset.load(["positions_nm"])["positions_nm"])
    random = generator(seed, "hydrogens", molecule.name)
    return permute_equivalent_hydrogens(positions, molecule, random)
