"""The pipeline from Python: simulate a molecule, train on it, and sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.load import load_config, with_values
from bnce_dist.data.atomic import read_json
from bnce_dist.distributed.launch import executor_for
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.molecule import prepare, run_molecule


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
        """Free energy by umbrella sampling: ``delta_f_kT``, ``stderr_kT``, ``converged``..."""
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
        molecule: The molecule, or its sequence.
        folder: Where everything of this run is kept.
        config: YAML file of settings; by default those of alanine dipeptide.
        settings: More of them by dotted name, e.g. ``{"target.temperature_kelvin": 310.0}``.

    Raises: InputError: unusable settings, or a folder in which another process is at work.
    """
    sequence = molecule if isinstance(molecule, str) else molecule.name
    values = {"target.sequence": sequence, "target.pdb": None, **(settings or {})}
    resolved = with_values(load_config(Config, Path(config) if config else None), values)
    simulation = Simulation(resolved, RunFolder(Path(folder).absolute()))
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


def _run(simulation: Simulation, last_stage: str) -> None:
    run = prepare(simulation.config, simulation.folder, resume=True)
    run_molecule(run, executor_for(run, last_stage), last_stage=last_stage)
