"""A run that goes on from a finished one: its annealed samples are where new training data start.

Umbrella sampling of one or two torsions leaves few independent frames of a chain that has many, and
an emulator learns the wrong populations from chains that start there. Annealed samples are nearer
to equilibrium in all of them. So a refined run simulates from those, by their weights, and trains
the models of the run before on. Its reference is that of the run before: what is learned from
samples must be judged by something that is not.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_path,
    energy_matching,
)
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.run import STAGES, RunKind, StageSpec
from bnce_dist.pipeline.stages.adopt import adopt
from bnce_dist.pipeline.stages.annealing import ANNEALED
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.dataset import run_annealed_dataset
from bnce_dist.pipeline.stages.train_emulator import fit_emulator, training_positions
from bnce_dist.pipeline.stages.train_energy import fit_density
from bnce_dist.runs.refinable import require_refinable

_SIMULATION, _SAMPLES, _EMULATOR, _ENERGY = (
    f"refined_{name}" for name in ("simulation", "samples", "emulator", "energy")
)


def refined_kind(config: Config, folder: RunFolder) -> RunKind:
    """Return the stages of a run that refines ``config.refines``.

    Args:
        config: Of the run.
        folder: Of the run.

    Raises: InputError: as `require_refinable`.
    """
    # Workers of a cluster have another working directory.
    before = RunFolder(Path(str(config.refines)).resolve())
    require_refinable(config, folder, before)
    trained = {_SAMPLES: f"{ANNEALED}/", _EMULATOR: "emulator.pt"}
    energy = {"generate": "samples/", "train_emulator": "emulator.pt", _ENERGY: "energy.pt"}
    specs = (
        StageSpec("simulate", partial(adopt, name=_SIMULATION), (), {_SIMULATION: ""}),
        StageSpec("train_emulator", train_emulator_on, ("target", "dataset", "emulator"), trained),
        STAGES[2],
        StageSpec("train_energy", train_energy_on, ("energy",), energy),
        STAGES[-1],
    )
    given = {
        _SIMULATION: before.stage("simulate"),
        _SAMPLES: before.stage("evaluate"),
        _EMULATOR: before.stage("train_emulator"),
        _ENERGY: before.stage("train_energy"),
    }
    return RunKind(specs, given)


def train_emulator_on(context: StageContext) -> None:
    """Simulate from annealed samples and train the emulator on; leave ``dataset``, ``emulator.pt``.

    Its coordinates stay what they were.
    """
    path = context.inputs[_EMULATOR] / "emulator.pt"
    run_annealed_dataset(context, context.inputs[_SAMPLES] / ANNEALED)
    config = context.config.emulator
    before = Emulator.load(path, molecule_identity=context.target.molecule.identity)
    fit_emulator(
        context,
        replace(
            before, num_ode_steps=config.num_ode_steps, ode_time_exponent=config.ode_time_exponent
        ),
        partial(flow_matching_from, path, config),
        training_positions(context, context.folder),
    )


def train_energy_on(context: StageContext) -> None:
    """Train the energy model on, with samples of the new emulator; leave ``energy.pt``."""
    path = context.inputs[_ENERGY] / "energy.pt"
    density = LearnedDensity.load(path, molecule_identity=context.target.molecule.identity)
    config = context.config.energy
    build_objective = partial(energy_matching_from, path, config, density.space)
    fit_density(context, density, config, build_objective)


def flow_matching_from(path: Path, config: EmulatorConfig) -> FlowMatching:
    """Return the objective around the flow of an emulator's file."""
    emulator = Emulator.load(path)
    return FlowMatching(
        emulator.velocity_field,
        build_path(config.interpolant, emulator.space),
        time_exponent=config.time_exponent,
    )


def energy_matching_from(path: Path, config: EnergyConfig, space: Space) -> EnergyMatching:
    """Return the objective around the energy model of a file."""
    return energy_matching(config, LearnedDensity.load(path).energy_model, space)
