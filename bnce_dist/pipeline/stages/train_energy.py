"""Train the energy model on the emulator's samples."""

from collections.abc import Callable
from functools import partial

from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.architectures import build_energy_matching, build_energy_model
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model
from bnce_dist.training.settings import TrainingConfig


def run(context: StageContext) -> None:
    """Leave ``energy.pt``."""
    config, identity = context.config.energy, context.target.molecule.identity
    emulator = Emulator.load(
        context.inputs["train_emulator"] / "emulator.pt", molecule_identity=identity
    )
    energy_model = build_energy_model(config, emulator.space)
    fit_density(
        context,
        LearnedDensity(identity, emulator.coordinates, energy_model, config.interpolant),
        config,
        partial(build_energy_matching, config, emulator.space),
    )


def fit_density(
    context: StageContext,
    density: LearnedDensity,
    config: TrainingConfig,
    build_objective: Callable[[], EnergyMatching],
) -> None:
    """Train the energy model of a density on the emulator's samples and leave ``energy.pt``.

    Args:
        context: Of the stage.
        density: In the emulator's coordinates.
        config: How to train.
        build_objective: Makes the objective around the model that the training begins with.
    """
    samples = ShardedDataset.open(
        context.inputs["generate"] / "samples", molecule=context.target.molecule.identity
    )
    z = samples.stream("z")
    fit_model(context, "energy", config, density.energy_model, build_objective, z)
    density.save(context.folder / "energy.pt")
    context.tracker.log_model("energy", context.folder / "energy.pt")
