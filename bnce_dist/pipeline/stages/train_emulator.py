"""Fit coordinates and a flow to the simulated molecules."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import Coordinates, WhitenedInternal, ZMatrix
from bnce_dist.chem.simulation.training_data import permute_equivalent_hydrogens
from bnce_dist.core.objectives import FlowMatching
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.architectures import build_flow_matching, build_velocity_field
from bnce_dist.generator.emulator import Emulator
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model

_ENCODE_BATCH = 8192


def run(context: StageContext) -> None:
    """Leave ``emulator.pt``."""
    config, molecule = context.config.emulator, context.target.molecule
    positions = training_positions(context, context.inputs["simulate"])
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, positions)
    space = Space(coordinates.num_euclidean, coordinates.num_circular)
    emulator = Emulator(
        molecule.identity,
        coordinates,
        build_velocity_field(config, space),
        config.num_ode_steps,
        config.ode_time_exponent,
        config.interpolant,
    )
    fit_emulator(context, emulator, partial(build_flow_matching, config, space), positions)


def training_positions(context: StageContext, folder: Path) -> Tensor:
    """Return the frames of the data set in a folder, ``(frames, atoms, 3)`` [nm].

    Hydrogens that nothing tells apart change places.
    """
    molecule = context.target.molecule
    dataset = ShardedDataset.open(folder / "dataset", molecule=molecule.identity)
    positions = torch.from_numpy(dataset.load(["positions_nm"])["positions_nm"])
    noise = generator(context.config.seed, "hydrogens")
    return permute_equivalent_hydrogens(positions, molecule, noise)


def fit_emulator(
    context: StageContext,
    emulator: Emulator,
    build_objective: Callable[[], FlowMatching],
    positions_nm: Tensor,
) -> None:
    """Train the flow of an emulator and leave ``emulator.pt``.

    Args:
        context: Of the stage.
        emulator: In internal coordinates.
        build_objective: Makes the objective around the flow that the training begins with.
        positions_nm: What to learn from, ``(frames, atoms, 3)`` [nm].
    """
    coordinates, velocity_field = emulator.coordinates, emulator.velocity_field
    assert isinstance(coordinates, WhitenedInternal)
    assert isinstance(velocity_field, InternalVelocity)
    context.tracker.log_metrics({"condition_number": coordinates.condition_number})
    config, z = context.config.emulator, encode(coordinates, positions_nm)
    fit_model(context, "emulator", config, velocity_field, build_objective, [z])
    emulator.save(context.folder / "emulator.pt")
    context.tracker.log_model("emulator", context.folder / "emulator.pt")


def encode(coordinates: Coordinates, positions_nm: Tensor) -> np.ndarray:
    """Return the model-space vectors of positions, ``(samples, dim)`` float32."""
    batches = [coordinates.encode(batch)[0] for batch in positions_nm.split(_ENCODE_BATCH)]
    return torch.cat(batches).float().numpy()
