"""Fit coordinates and a flow to the simulated molecules."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import Coordinates, WhitenedInternal, ZMatrix
from bnce_dist.chem.simulation.training_data import permute_equivalent_hydrogens
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.architectures import build_flow_matching, build_velocity_field
from bnce_dist.generator.emulator import Emulator
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model

_ENCODE_BATCH = 8192


def run(context: StageContext) -> None:
    """Leave ``emulator.pt``."""
    config, molecule = context.config.emulator, context.target.molecule
    dataset = ShardedDataset.open(
        context.inputs["simulate"] / "dataset", molecule=molecule.identity
    )
    positions = torch.from_numpy(dataset.load(["positions_nm"])["positions_nm"])
    positions = permute_equivalent_hydrogens(
        positions, molecule, generator(context.config.seed, "hydrogens")
    )
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, positions)
    context.tracker.log_metrics({"condition_number": coordinates.condition_number})

    space = Space(coordinates.num_euclidean, coordinates.num_circular)
    velocity_field = build_velocity_field(config, space)
    fit_model(
        context,
        "emulator",
        config,
        velocity_field,
        partial(build_flow_matching, config, space),
        [encode(coordinates, positions)],
    )
    emulator = Emulator(
        molecule.identity,
        coordinates,
        velocity_field,
        config.num_ode_steps,
        config.ode_time_exponent,
        config.interpolant,
    )
    emulator.save(context.folder / "emulator.pt")
    context.tracker.log_model("emulator", context.folder / "emulator.pt")


def encode(coordinates: Coordinates, positions_nm: Tensor) -> np.ndarray:
    """Return the model-space vectors of positions, ``(samples, dim)`` float32."""
    batches = [coordinates.encode(batch)[0] for batch in positions_nm.split(_ENCODE_BATCH)]
    return torch.cat(batches).float().numpy()
