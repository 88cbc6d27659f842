"""Train the energy model on the emulator's samples."""

from functools import partial

from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.architectures import build_energy_matching, build_energy_model
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model


def run(context: StageContext) -> None:
    """Leave ``energy.pt``."""
    config, identity = context.config.energy, context.target.molecule.identity
    samples = ShardedDataset.open(context.inputs["generate"] / "samples", molecule=identity)
    emulator = Emulator.load(
        context.inputs["train_emulator"] / "emulator.pt", molecule_identity=identity
    )
    energy_model = build_energy_model(config, emulator.space)
    fit_model(
        context,
        "energy",
        config,
        energy_model,
        partial(build_energy_matching, config, emulator.space),
        samples.stream("z"),
    )
    density = LearnedDensity(identity, emulator.coordinates, energy_model, config.interpolant)
    density.save(context.folder / "energy.pt")
    context.tracker.log_model("energy", context.folder / "energy.pt")
