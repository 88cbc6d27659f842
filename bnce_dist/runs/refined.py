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

from bnce_dist.config.load import dotted_values, load_config
from bnce_dist.core.errors import InputError
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_model,
    build_path,
    build_velocity_field,
    energy_matching,
)
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.run import STAGES, RunKind, StageSpec
from bnce_dist.pipeline.stages.adopt import adopt
from bnce_dist.pipeline.stages.annealing import ANNEALED
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.dataset import run_annealed_dataset
from bnce_dist.pipeline.stages.train_emulator import fit_emulator, training_positions
from bnce_dist.pipeline.stages.train_energy import fit_density

_SIMULATION, _SAMPLES, _EMULATOR, _ENERGY = (
    f"refined_{name}" for name in ("simulation", "samples", "emulator", "energy")
)


def refined_kind(config: Config, folder: RunFolder) -> RunKind:
    """Return the stages of a run that refines ``config.refines``.

    Args:
        config: Of the run.
        folder: Of the run.

    Raises: InputError: no finished run whose samples were annealed, one of another molecule or
        reference, models that cannot learn on, or the same seed.
    """
    # Workers of a cluster have another working directory.
    before = RunFolder(Path(str(config.refines)).absolute())
    _require_refinable(config, folder, before)
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


def _require_refinable(config: Config, folder: RunFolder, before: RunFolder) -> None:
    """Refuse a run that cannot be refined, or not with these settings."""
    what = f"refines={before.path}"
    if not (before.path / "metrics.json").exists():
        raise InputError(
            what,
            expected="the folder of a finished run of one molecule",
            got="no metrics.json in it",
            remedy="name that folder (of a fleet: FLEET/MOLECULE), or finish the run first",
        )
    if before.path.resolve() == folder.path.resolve():
        raise InputError(
            what, expected="another run", got="the run itself", remedy="choose another --name"
        )
    config.dataset.require_both_sides()
    emulator, density = _models(what, before)
    _require_same(config, load_config(Config, before.config_path), what)
    built = build_velocity_field(config.emulator, emulator.space), config.emulator.interpolant
    given = emulator.velocity_field, emulator.interpolant
    energy = build_energy_model(config.energy, density.space), config.energy.interpolant
    given_energy = density.energy_model, density.interpolant
    for section, (model, path), (known, its_path) in (
        ("emulator", built, given), ("energy", energy, given_energy),
    ):  # fmt: skip
        if (type(model), model.config(), path) != (type(known), known.config(), its_path):
            raise InputError(
                f"section {section} beside {what}",
                expected="the architecture and interpolant of the model that learns on",
                got="others",
                remedy=f"leave out what section {section} says of them",
            )


def _models(what: str, before: RunFolder) -> tuple[Emulator, LearnedDensity]:
    """Return the models that are to learn on."""
    emulator = Emulator.load(before.stage("train_emulator") / "emulator.pt")
    if not isinstance(emulator.velocity_field, InternalVelocity):
        raise InputError(
            what,
            expected="a run with an emulator of its molecule alone",
            got="one of a field for many molecules",
            remedy="run the molecule without --transferable first",
        )
    if not (before.stage("evaluate") / ANNEALED).exists():
        raise InputError(
            what,
            expected="annealed samples",
            got="samples as they were drawn",
            remedy="run it again with evaluate.annealing.enabled=true and --resume",
        )
    if read_json(before.path / "metrics.json")["delta_f_kT"] is None:
        raise InputError(
            what,
            expected="samples with a weight, which chains start from",
            got="none with any",
            remedy="train its models longer first (emulator.num_steps, --resume)",
        )
    return emulator, LearnedDensity.load(before.stage("train_energy") / "energy.pt")


def _require_same(config: Config, before: Config, what: str) -> None:
    """Refuse another target, reference or layout of chains than the run before, and its noise."""
    old, new = dotted_values(before), dotted_values(config)
    changed = [
        f"{key}={new[key]} instead of {old[key]}"
        for key in new
        if key.partition(".")[0] in ("target", "reference") and new[key] != old[key]
    ]
    if changed:
        raise InputError(
            f"settings beside {what}",
            expected="its target and its reference",
            got=", ".join(changed),
            remedy="leave them out: bnce train --refine RUN takes the settings of the run",
        )
    if config.seed <= before.seed:  # So it differs from those of all runs that came before, too.
        raise InputError(
            f"seed={config.seed} beside {what}",
            expected=f"a larger one than that run's {before.seed}: a model must not be judged by "
            "the noise whose images it learned",
            got=config.seed,
            remedy=f"set seed={before.seed + 1}",
        )
    layout = ("num_chains", "num_tasks", "trajectory", "stride")
    changed = [
        f"dataset.{name}={getattr(config.dataset, name)}"
        for name in layout
        if getattr(config.dataset, name) != getattr(before.dataset, name)
    ]
    if changed:
        raise InputError(
            f"settings beside {what}",
            expected="the chains of that run, which energies are compared with",
            got=", ".join(changed),
            remedy="leave them out; dataset.frames_per_chain may change",
        )
