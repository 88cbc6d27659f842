"""One field for many molecules: who teaches it, who is asked, and the runs that come of it.

The folder of such a run holds ``training/<molecule>``, the simulations the field learns from;
``field``; and for every molecule asked about ``<molecule>_zero_shot`` and
``<molecule>_fine_tuned``, each the folder of a run like any other.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bnce_dist.chem.features import dipeptide_features
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError
from bnce_dist.generator.architectures import require_architecture
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.run import STAGE_NAMES, STAGES, RunKind, StageSpec
from bnce_dist.pipeline.stages.reference import run_reference
from bnce_dist.runs.fleet.members import Member, Outcome, members_of
from bnce_dist.runs.fleet.run import run_fleet
from bnce_dist.runs.transferable import stages

ZERO_SHOT, FINE_TUNED = "zero_shot", "fine_tuned"

_FROM_SAMPLES_ON = tuple(
    spec for spec in STAGES if spec.name in ("generate", "train_energy", "evaluate")
)

TRAINING_DATA = RunKind(STAGES[:1], is_cartesian=True)
"""The simulation of a molecule that the field learns from."""


class RunMolecule(Protocol):
    """Runs one molecule by a kind with tracking and figures (see ``launch.run_molecule``)."""

    def __call__(
        self,
        config: Config,
        folder: RunFolder,
        executor: Executor,
        *,
        last_stage: str,
        kind: RunKind,
    ) -> dict[str, Any] | None:
        """Return the run's metrics."""
        ...


def run_transferable(
    config: Config, members: Sequence[Member], folder: Path, executor: Executor, run: RunMolecule
) -> list[Outcome]:
    """Train one field and ask it about molecules it has not seen, as it is and fine-tuned.

    Args:
        config: Of the run.
        members: The molecules that are asked about.
        folder: Of the run.
        executor: Does the work.
        run: Picklable.

    Returns: Of every molecule one outcome, and a second if it could be fine-tuned.
    Raises: InputError: a simulation that the field learns from failed.
    """
    simulate = partial(run, last_stage="simulate", kind=TRAINING_DATA)
    _require_all(run_fleet(training_members(config, folder), simulate, executor, ["simulate"]))

    field = field_member(config, folder)
    kind = field_kind(config, folder)
    run(field.config, field.folder, executor, last_stage="train_emulator", kind=kind)

    evaluate = partial(run, last_stage=STAGE_NAMES[-1])
    zero_shot = run_fleet(
        variants_of(members, ZERO_SHOT, folder),
        partial(evaluate, kind=zero_shot_kind(folder)),
        executor,
        STAGE_NAMES,
        ZERO_SHOT,
    )
    usable = [m for m, outcome in zip(members, zero_shot, strict=True) if not outcome.error]
    fine_tuned = run_fleet(
        variants_of(usable, FINE_TUNED, folder),
        partial(_run_fine_tuned, evaluate),
        executor,
        STAGE_NAMES,
        FINE_TUNED,
    )
    order = [member.name for member in members]
    return sorted(zero_shot + fine_tuned, key=lambda outcome: order.index(outcome.sequence))


def check_molecules(config: Config, molecules: Sequence[str]) -> None:
    """Check the lists of molecules and the energy model before anything is simulated.

    Args:
        config: Of the run.
        molecules: Sequences of those that are asked about.

    Raises: InputError: no dipeptide of known L residues, one that is in both lists, or an energy
        model in internal coordinates.
    """
    require_architecture(config.energy, is_cartesian=True)
    taught = {_identity(name) for name in config.transferable.training_molecules}
    both = [name for name in molecules if _identity(name) in taught]
    if both:
        raise InputError(
            "--molecules with --transferable",
            expected="molecules that the field has not seen",
            got=f"{', '.join(both)}, also in transferable.training_molecules",
            remedy="take them out of one of the two lists",
        )


def runs_of(config: Config, members: Sequence[Member], folder: Path) -> list[Member]:
    """Return all runs that a transferable run consists of.

    Args:
        config: Of the run.
        members: The molecules that are asked about.
        folder: Of the run.
    """
    return [
        *training_members(config, folder),
        field_member(config, folder),
        *variants_of(members, ZERO_SHOT, folder),
        *variants_of(members, FINE_TUNED, folder),
    ]


def training_members(config: Config, folder: Path) -> list[Member]:
    """Return the molecules that the field learns from.

    Args:
        config: Of the run.
        folder: Of the run.
    """
    return members_of(",".join(config.transferable.training_molecules), config, folder / "training")


def field_member(config: Config, folder: Path) -> Member:
    """Return the run that trains the field; it goes by the name of the first of its molecules."""
    first = training_members(config, folder)[0]
    return Member(first.name, first.config, RunFolder(folder / "field"))


def field_kind(config: Config, folder: Path) -> RunKind:
    """Return the training of the field on all data sets together."""
    members = training_members(config, folder)
    inputs = {member.name: "dataset/" for member in members}
    spec = StageSpec("train_emulator", stages.train_field, ("transferable",), inputs)
    given = {member.name: member.folder.stage("simulate") for member in members}
    return RunKind((spec,), given, is_cartesian=True)


def variants_of(members: Sequence[Member], variant: str, folder: Path) -> list[Member]:
    """Return the runs of all molecules with the field as it is, or fine-tuned.

    Args:
        members: The molecules.
        variant: ``ZERO_SHOT`` or ``FINE_TUNED``.
        folder: Of the transferable run.
    """
    names = [f"{member.name}_{variant}" for member in members]
    return [
        Member(name, _of_variant(member.config, variant), RunFolder(folder / name))
        for name, member in zip(names, members, strict=True)
    ]


def zero_shot_kind(folder: Path) -> RunKind:
    """Return the run of a molecule that the field has never seen.

    Its own simulation is for comparison alone.
    """
    specs = (
        StageSpec("simulate", run_reference, ("target", "reference")),
        StageSpec("train_emulator", stages.bind_field, (), {"field": ""}),
        *_FROM_SAMPLES_ON,
    )
    given = {"field": RunFolder(folder / "field").stage("train_emulator")}
    return RunKind(specs, given, is_cartesian=True)


def fine_tuned_kind(folder: RunFolder) -> RunKind:
    """Return the run that goes on from the zero-shot run beside it, on its reweighted samples.

    Args:
        folder: Of the fine-tuned run.
    """
    name = folder.path.name.removesuffix(FINE_TUNED) + ZERO_SHOT
    zero_shot = RunFolder(folder.path.with_name(name))
    inputs = {"zero_shot_emulator": "emulator.pt", "zero_shot_evaluation": ""}
    sections = ("transferable", "fine_tuning", "evaluate")
    specs = (
        StageSpec("simulate", stages.adopt_reference, (), {"zero_shot_reference": ""}),
        StageSpec("train_emulator", stages.fine_tune, sections, inputs),
        *_FROM_SAMPLES_ON,
    )
    given = {
        "zero_shot_reference": zero_shot.stage("simulate"),
        "zero_shot_emulator": zero_shot.stage("train_emulator"),
        "zero_shot_evaluation": zero_shot.stage("evaluate"),
    }
    return RunKind(specs, given, is_cartesian=True)


def _run_fine_tuned(
    evaluate: partial[dict[str, Any] | None],
    config: Config,
    folder: RunFolder,
    executor: Executor,
) -> dict[str, Any] | None:
    return evaluate(config, folder, executor, kind=fine_tuned_kind(folder))


def _require_all(outcomes: Sequence[Outcome]) -> None:
    failed = [f"{outcome.name} ({outcome.error})" for outcome in outcomes if outcome.error]
    if failed:
        raise InputError(
            "simulations for the transferable field",
            expected="all molecules of transferable.training_molecules",
            got=f"failures of {'; '.join(failed)}",
            remedy="take these molecules out of the list, or change their simulation",
        )


def _of_variant(config: Config, variant: str) -> Config:
    """Return the settings of a variant.

    A field must not be judged by the noise whose images it was trained on, so the fine-tuned one
    draws its own.
    """
    seed = config.seed + (variant == FINE_TUNED)
    return config.model_copy(update={"seed": seed})


def _identity(sequence: str) -> str:
    molecule = Molecule.from_sequence(sequence)
    dipeptide_features(molecule)  # Refuses what is no dipeptide.
    return molecule.identity
