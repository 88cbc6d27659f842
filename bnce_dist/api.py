"""Every kind of run from Python; each function does what the command of its name does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.load import Schema, load_config, with_values
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.data.atomic import read_json
from bnce_dist.distributed.launch import create_executor, executor_for, fleet_with_executor
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.fleet.members import Outcome
from bnce_dist.runs.fleet.run import run_fleet
from bnce_dist.runs.molecule import prepare, run_molecule
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.run import run_tracked
from bnce_dist.runs.pretrained.comparison import Comparison
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.results import evaluate_pretrained_field
from bnce_dist.runs.pretrained.run import PretrainedRun
from bnce_dist.runs.sweep.checks import resolve
from bnce_dist.runs.sweep.config import SweepConfig
from bnce_dist.runs.sweep.folder import SweepFolder
from bnce_dist.runs.sweep.trial import TrialResult
from bnce_dist.runs.transferable.run import prepare_transferable, run_transferable

SAME_STRUCTURE_NM = 1e-3


@dataclass(frozen=True)
class Simulation:
    """A simulated molecule: a run whose first stage is finished.

    Args:
        config: Of the run.
        folder: Of the run.
    """

    config: Config
    folder: RunFolder

    @property
    def reference(self) -> dict[str, Any]:
        """Free energy of the simulation itself: ``delta_f_kT``, ``stderr_kT``, ``converged``..."""
        return read_json(self.folder.stage("simulate") / "reference" / "result.json")


def simulate(
    molecule: Molecule | str,
    folder: str | Path,
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Simulation:
    """Simulate a molecule: its reference free energy and the data that models learn from.

    The same call again continues an interrupted simulation and repeats nothing that is finished;
    work of other settings is moved to ``superseded/`` in the folder.

    Args:
        molecule: A sequence, or what `Molecule.from_sequence` made of it. Molecules from files are
            named by settings, ``{"target.sequence": None, "target.pdb": "mine.pdb"}``, which win.
        folder: Where everything of this run is kept.
        config: YAML file of settings; by default those of alanine dipeptide.
        settings: More of them by dotted name, e.g. ``{"target.temperature_kelvin": 310.0}``.

    Raises: InputError: unusable settings, a molecule that its sequence does not say all about, or a
        folder in which another process is at work.
    """
    sequence = molecule if isinstance(molecule, str) else _sequence_of(molecule)
    values = {"target.sequence": sequence, "target.pdb": None, **(settings or {})}
    resolved = _resolved(Config, config, values)
    simulation = Simulation(resolved, RunFolder(local_path(folder).absolute()))
    _run(simulation, "simulate")
    return simulation


def train(
    simulation: Simulation, *, settings: Mapping[str, Any] | None = None
) -> BoltzmannGenerator:
    """Train an emulator on a simulation and an energy model on the emulator, and evaluate both.

    The same call again continues an interrupted training; other settings redo what they affect.

    Args:
        simulation: What `simulate` returned.
        settings: Settings to change, by dotted name, e.g. ``{"emulator.num_steps": 9000}``.

    Raises: InputError: unusable settings.
    """
    config = with_values(simulation.config, settings or {})
    _run(Simulation(config, simulation.folder), "evaluate")
    return BoltzmannGenerator.load(simulation.folder.path)


def train_fleet(
    molecules: Sequence[str],
    folder: str | Path,
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Run every molecule from nothing to a free energy, side by side, and leave one table.

    The same call again continues an interrupted fleet; finished work is not repeated.

    Args:
        molecules: Sequences.
        folder: Of the fleet; every molecule gets a folder of its own in it.
        config: YAML file of settings; by default those of alanine dipeptide.
        settings: More of them by dotted name.

    Returns: Of every molecule its metrics, or why it failed.
    Raises: InputError: unusable settings or molecules; nothing has been computed then.
    """
    resolved = _resolved(Config, config, settings)
    path = local_path(folder).absolute()
    return run_fleet(*fleet_with_executor(resolved, ",".join(molecules), path, resume=True))


def train_transferable(
    molecules: Sequence[str],
    folder: str | Path,
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Train one field on some molecules, Cartesian or internal, and ask it about others.

    Args:
        molecules: Sequences of those that it is asked about; it learns from
            ``transferable.training_molecules``.
        folder: Of the run.
        config: YAML file of settings.
        settings: More of them by dotted name.

    Returns: Of every molecule one outcome with the models as they are, and one fine-tuned: with a
        Cartesian field itself; in internal coordinates with the shared energy model, if there is
        one and ``shared_energy.fine_tunes``.
    Raises: InputError: as `train_fleet`.
    """
    resolved = _resolved(Config, config, settings)
    run = prepare_transferable(
        resolved, ",".join(molecules), local_path(folder).absolute(), resume=True
    )
    first, *_ = run.zero_shot.values()
    return run_transferable(run, executor_for(first))


def sweep(
    config: str | Path,
    folder: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> TrialResult:
    """Run many trials over a space of settings on Ray Tune.

    Args:
        config: YAML file of the sweep.
        folder: Gets the trials, their table and figures, and ``best.yaml``.
        settings: Settings that win over the file's, by dotted name.
        resume: Whether to continue the sweep in the folder, if there is one.

    Returns: The best trial.
    Raises: InputError: an unusable sweep, another one's folder, or no trial that finished.
    """
    # Ray takes seconds to import, which an error should not wait for.
    from bnce_dist.distributed.sweep import run_sweep

    resolved, base = resolve(_resolved(SweepConfig, config, settings))
    sweep_folder = SweepFolder(local_path(folder).absolute())
    sweep_folder.require_same_sweep(resolved, resume=resume)
    return run_sweep(resolved, base, sweep_folder)


def learn_planar(
    folder: str | Path,
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Learn a density in the plane and measure how far it is from the true one.

    Args:
        folder: Of the run.
        config: YAML file of settings; by default our recipe.
        settings: More of them by dotted name, e.g. ``{"system": "checkerboard"}``.

    Returns: Divergences on the grid [nats], steps and processor time.
    Raises: InputError: unusable settings, or another run's folder.
    """
    resolved = _resolved(PlanarConfig, config, settings)
    executor = create_executor(resolved.cluster, "local")
    return run_tracked(resolved, local_path(folder).absolute(), executor)


def evaluate_pretrained(
    weights: str | Path,
    folder: str | Path,
    *,
    comparison: Comparison | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Sample a velocity field others trained, learn its density, reweight to a potential.

    Args:
        weights: A released file, under its released name.
        folder: Of the run.
        comparison: What other people found for the molecule.
        config: YAML file of settings.
        settings: More of them by dotted name.

    Returns: The free energy with its diagnostics, as in ``metrics.json``.
    Raises: InputError: unusable weights, settings or folder.
    """
    values = {"weights": str(local_path(weights)), **(settings or {})}
    resolved = _resolved(PretrainedConfig, config, values)
    run = PretrainedRun(resolved, local_path(folder).absolute())
    return evaluate_pretrained_field(run, create_executor(resolved.cluster), comparison)


def _sequence_of(molecule: Molecule) -> str:
    """Return the name of a molecule that its workers can build from nothing else."""
    try:
        built = Molecule.from_sequence(molecule.name)
        # Positions are no part of equality, but tell a cis bond from a trans one.
        is_same = built == molecule and np.allclose(
            built.positions_nm, molecule.positions_nm, atol=SAME_STRUCTURE_NM
        )
    except InputError:
        is_same = False
    if not is_same:
        raise InputError(
            f"molecule {molecule.name}",
            expected="a sequence or what Molecule.from_sequence makes of it",
            got="another molecule, structure or choice of torsions",
            remedy="pass its name, and what else it is by settings: target.torsions, or"
            " target.sequence=None with target.pdb, or with target.topology and target.coordinates",
        )
    return molecule.name


def _resolved(
    schema: type[Schema], config: str | Path | None, settings: Mapping[str, Any] | None
) -> Schema:
    return with_values(load_config(schema, local_path(config) if config else None), settings or {})


def _run(simulation: Simulation, last_stage: str) -> None:
    run = prepare(simulation.config, simulation.folder, resume=True)
    run_molecule(run, executor_for(run, last_stage), last_stage=last_stage)
