"""The data the emulator learns from: unbiased chains from biased starts."""

import math
from functools import partial

import numpy as np
import torch

from bnce_dist.chem.langevin import Langevin, LangevinSettings, relax, repartitioned_masses
from bnce_dist.chem.starts import with_torsions
from bnce_dist.core.random import generator
from bnce_dist.pipeline.config import DatasetConfig
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.target import Target


def run_dataset(context: StageContext) -> None:
    """Leave the data set ``dataset``."""
    context.executor.map_shards(
        partial(ChainWorker, context.target, context.config.dataset, context.config.seed),
        context.config.dataset.num_tasks,
        context.folder / "dataset",
        metadata=context.metadata({"positions_nm": "nm"}),
        label="data set",
    )


class ChainWorker:
    """Simulates independent chains.

    Args:
        target: What to simulate.
        config: How.
        seed: Of the run.
    """

    def __init__(self, target: Target, config: DatasetConfig, seed: int) -> None:
        self.target, self.config, self.seed = target, config, seed
        self.dynamics = target.force_field.astype(torch.float32)

    @torch.no_grad()
    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the frames of one task's chains."""
        config, molecule = self.config, self.target.molecule
        random = generator(self.seed, "dataset", index)
        n = config.num_chains // config.num_tasks
        phi = torch.full((n,), math.radians(-90.0))
        phi[: round(n * config.state_fraction)] = sum(self.target.state_phi) / 2
        psi = (torch.rand(n, generator=random) * 2 - 1) * math.pi
        forces = lambda x: self.dynamics.energy_and_forces_kj_mol(x)[1]
        x = with_torsions(
            torch.tensor(molecule.positions_nm).float(),
            molecule.bonds, [molecule.phi, molecule.psi], torch.stack([phi, psi], 1),
        )
        x = relax(forces, x)
        engine = Langevin(
            forces,
            repartitioned_masses(molecule.masses_dalton, molecule.elements, molecule.bonds, 3.0),
            LangevinSettings(self.target.force_field.temperature_kelvin, config.timestep_fs),
        )
        v = engine.thermal_velocities(x, random)
        x, v = engine.run(x, v, round(1e3 * config.equilibration_ps / config.timestep_fs), random)
        frames = []
        for _ in range(config.frames_per_chain):
            x, v = engine.run(x, v, round(1e3 * config.frame_interval_ps / config.timestep_fs), random)
            frames.append(x.numpy())
        return {"positions_nm": np.concatenate(frames)}
