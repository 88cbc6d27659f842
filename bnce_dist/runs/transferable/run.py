"""One field for many molecules: who teaches it, who is asked, and the runs that come of it.

The folder of such a run holds ``training/<molecule>``, the simulations the field learns from;
``field``; and for every molecule asked about ``<molecule>_zero_shot`` and, of a Cartesian field or
of a shared energy model that ``fine_tunes``, ``<molecule>_fine_tuned``, each the folder of a run
like any other.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bnce_dist.chem.feature_sets import FeatureSet
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.data.atomic import file_sha256
from bnce_dist.generator.architectures import require_architecture
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.shared_generator import load_field
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.run import STAGE_NAMES, STAGES, RunKind, StageSpec
from bnce_dist.pipeline.stages.adopt import adopt
from bnce_dist.pipeline.stages.dataset import run_spread_dataset
from bnce_dist.pipeline.stages.reference import run_reference
from bnce_dist.runs.fleet.members import Member, Outcome, members_of
from bnce_dist.runs.fleet.run import run_members, tracked_fleet, write_fleet
from bnce_dist.runs.molecule import PreparedRun, prepare, run_molecule, with_common_store
from bnce_dist.runs.transferable import density, internal, stages
from bnce_dist.training.progress import Progress

ZERO_SHOT, FINE_TUNED = "zero_shot", "fine_tuned"

_FROM_SAMPLES_ON = tuple(
    spec for spec in STAGES if spec.name in ("generate", "train_energy", "evaluate")
)

_SHARED_ENERGY = (
    StageSpec(
        "generate",
        density.sample_teachers,
        ("shared_energy", "transferable"),
        {"train_emulator": internal.FILE_NAME},
    ),
    StageSpec(
        "train_energy",
        density.train_shared_energy,
        ("target", "transferable", "shared_energy"),
        {"generate": "samples/", "train_emulator": internal.FILE_NAME},
    ),
)
"""What follows the training of a field, if one energy model is to serve all molecules."""

TRAINING_DATA = RunKind(STAGES[:1], is_cartesian=True)
"""The simulation of a molecule that a Cartesian field learns from."""
SPREAD_DATA = RunKind(
    (StageSpec("simulate", run_spread_dataset, ("target", "dataset", "spread")),), has_tokens=True
)
"""The same for a field in internal coordinates: no reference, chains from spread structures."""


@dataclass(frozen=True)
class PreparedTransferable:
    """A transferable run all of whose parts passed their checks.

    Args:
        config: Of the run.
        folder: Of the run.
        training: Simulations that the field learns from, by molecule; none of a given one.
        field: The training of the field.
        zero_shot: Runs of the molecules that are asked about with the field as it is, by name.
        fine_tuned: The same with a Cartesian field fine-tuned, or in internal coordinates the
            shared energy model; none without one, or without ``shared_energy.fine_tunes``.
    """

    config: Config
    folder: Path
    training: Mapping[str, PreparedRun]
    field: PreparedRun
    zero_shot: Mapping[str, PreparedRun]
    fine_tuned: Mapping[str, PreparedRun]


def prepare_transferable(
    config: Config, sequences: str, folder: Path, *, resume: bool = False
) -> PreparedTransferable:
    """Build and check all runs that a transferable run consists of.

    Args:
        config: Of the run.
        sequences: Molecules that are asked about, separated by commas.
        folder: Of the run.
        resume: Whether the folders may hold runs of another configuration.

    Raises: InputError: as `members_of`, `check_molecules` and `prepare`.
    """
    config = with_common_store(with_given_field(config), folder)
    members = members_of(sequences, config, folder)
    check_molecules(config, [member.name for member in members])
    taught = training_members(config, folder)
    given = config.transferable.field is not None

    is_internal = config.transferable.internal
    # The field's run goes by the name of the first of its molecules.
    field = Member(taught[0].name, taught[0].config, RunFolder(folder / "field"))
    training = [] if given else taught
    zero_shot = variants_of(members, ZERO_SHOT, folder)
    energy = config.shared_energy
    fine_tunes = energy.enabled and energy.fine_tunes if is_internal else True
    fine_tuned = variants_of(members, FINE_TUNED, folder) if fine_tunes else []
    data_kind = SPREAD_DATA if is_internal else TRAINING_DATA
    asked_kind = zero_shot_kind(config, folder)
    total = len(training) + 1 + len(zero_shot) + len(fine_tuned)
    with Progress("check molecules", total=total, unit="molecule") as progress:
        done = itertools.count(1)

        def prepared(member: Member, kind: RunKind) -> PreparedRun:
            run = prepare(member.config, member.folder, resume=resume, kind=kind)
            progress.update(next(done))
            return run

        return PreparedTransferable(
            config,
            folder,
            {member.name: prepared(member, data_kind) for member in training},
            prepared(field, field_kind(config, folder)),
            {member.name: prepared(member, asked_kind) for member in zero_shot},
            {
                member.name: prepared(member, fine_tuned_kind(config, member.folder))
                for member in fine_tuned
            },
        )


def run_transferable(run: PreparedTransferable, executor: Executor) -> list[Outcome]:
    """Train one field and ask it about molecules it has not seen, as it is and fine-tuned.

    Args:
        run: What `prepare_transferable` returned.
        executor: Does the work.

    Returns: Of every molecule one outcome, and a second if it could be fine-tuned.
    Raises: InputError: a simulation that the field learns from failed.
    """
    with tracked_fleet(run.config, run.folder) as tracker:
        simulate = partial(run_molecule, last_stage="simulate")
        _require_all(run_members(run.training, simulate, executor, ["simulate"]))
        run_molecule(run.field, executor, last_stage=run.field.kind.stages[-1].name)
        first, *_ = run.zero_shot.values()
        names = [spec.name for spec in first.kind.stages]
        zero_shot = run_members(run.zero_shot, run_molecule, executor, names, ZERO_SHOT)
        usable = {o.sequence for o in zero_shot if not o.error}
        runs = {name: one for name, one in run.fine_tuned.items() if _asked(name) in usable}
        fine_tuned = run_members(runs, run_molecule, executor, STAGE_NAMES, FINE_TUNED)
        order = [_asked(name) for name in run.zero_shot]
        outcomes = sorted(zero_shot + fine_tuned, key=lambda o: order.index(o.sequence))
        write_fleet(outcomes, run.folder, tracker)
    return outcomes


def with_given_field(config: Config) -> Config:
    """Return the settings of a given field, if there is one, in place of those of a training.

    Args:
        config: As it was written.

    Raises: InputError: the file is absent, torn, or of something else.
    """
    if config.transferable.field is None:
        return config
    path = local_path(config.transferable.field).absolute()
    shared, shared_density = load_field(path)
    sizes = {name: shared.field.config()[name] for name in ("width", "depth", "num_heads")}
    transferable = {
        "internal": True,
        "field": str(path),
        "training_molecules": shared.training_molecules,
    }
    with_density: dict[str, object] = {"enabled": shared_density is not None}
    if shared_density is not None:
        # It goes on learning on the path that it is read out by.
        with_density["interpolant"] = shared_density.interpolant
    return config.model_copy(
        update={
            "transferable": config.transferable.model_copy(update=transferable),
            "token_field": config.token_field.model_copy(update=sizes),
            "shared_energy": config.shared_energy.model_copy(update=with_density),
        }
    )


def check_molecules(config: Config, molecules: Sequence[str]) -> None:
    """Check the lists of molecules and the energy model before anything is simulated.

    Args:
        config: Of the run.
        molecules: Sequences of those that are asked about.

    Raises: InputError: a molecule that has none of the field's features, one that is in both lists
        or has a residue that no training molecule has, an energy model in other coordinates, or a
        run to refine.
    """
    if config.refines is not None:
        raise InputError(
            f"refines={config.refines} with --transferable",
            expected="a run of one molecule, or a fleet of such",
            got="one field for many molecules",
            remedy="leave one of them out",
        )
    is_internal = config.transferable.internal
    require_architecture(config.energy, is_cartesian=not is_internal, has_tokens=is_internal)
    features = config.transferable.feature_set
    taught = _with_features(config.transferable.training_molecules, features)
    asked = _with_features(molecules, features)
    identities = {molecule.identity for molecule in taught.values()}
    both = [name for name, molecule in asked.items() if molecule.identity in identities]
    if both:
        raise InputError(
            "--molecules with --transferable",
            expected="molecules that the field has not seen",
            got=f"{', '.join(both)}, also in transferable.training_molecules",
            remedy="take them out of one of the two lists",
        )
    known = features.residue_types(taught.values())
    for name, molecule in asked.items():
        if new := features.residue_types([molecule]) - known:
            raise InputError(
                f"{name} of --molecules with --transferable",
                expected=f"residues of the training molecules ({', '.join(sorted(known))})",
                got=", ".join(sorted(new)),
                remedy="add a molecule that has them to transferable.training_molecules",
            )


def training_members(config: Config, folder: Path) -> list[Member]:
    """Return the molecules that the field learns from.

    Args:
        config: Of the run.
        folder: Of the run.
    """
    return members_of(",".join(config.transferable.training_molecules), config, folder / "training")


def field_kind(config: Config, folder: Path) -> RunKind:
    """Return the training of the field on all data sets together, or the field that is given.

    An energy model of all molecules follows, if there is to be one.
    """
    has_density = config.shared_energy.enabled
    if (path := config.transferable.field) is not None:
        digest = file_sha256(Path(path))
        adopt = StageSpec("train_emulator", internal.adopt_field, (), file_digest=digest)
        inputs = {"train_emulator": internal.FILE_NAME}
        adopt_energy = StageSpec(
            "train_energy", density.adopt_energy, ("target",), inputs, file_digest=digest
        )
        return RunKind((adopt, adopt_energy) if has_density else (adopt,), has_tokens=True)
    members = training_members(config, folder)
    inputs = {member.name: "dataset/" for member in members}
    given = {member.name: member.folder.stage("simulate") for member in members}
    if config.transferable.internal:
        sections = ("transferable", "token_field")
        spec = StageSpec("train_emulator", internal.train_field, sections, inputs)
        specs = (spec, *_SHARED_ENERGY) if has_density else (spec,)
        return RunKind(specs, given, has_tokens=True)
    spec = StageSpec("train_emulator", stages.train_field, ("transferable",), inputs)
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


def zero_shot_kind(config: Config, folder: Path) -> RunKind:
    """Return the run of a molecule that the field has never seen.

    Its own simulation, if there is one, is for comparison alone.

    Args:
        config: Of the run.
        folder: Of the transferable run.
    """
    is_internal = config.transferable.internal
    bind = (
        StageSpec("train_emulator", internal.bind_field, ("target",), {"field": ""})
        if is_internal
        else StageSpec("train_emulator", stages.bind_field, (), {"field": ""})
    )
    simulate = (
        StageSpec("simulate", internal.simulate_nothing, ())
        if is_internal and config.transferable.without_simulation
        else StageSpec("simulate", run_reference, ("target", "reference"))
    )
    field = RunFolder(folder / "field")
    given = {"field": field.stage("train_emulator")}
    specs = (simulate, bind, *_FROM_SAMPLES_ON)
    if is_internal and config.shared_energy.enabled:
        inputs = {"train_emulator": "emulator.pt", "field_energy": density.FILE_NAME}
        bind_energy = StageSpec("train_energy", density.bind_energy, (), inputs)
        specs = (simulate, bind, bind_energy, STAGES[-1])
        given["field_energy"] = field.stage("train_energy")
    return RunKind(specs, given, is_cartesian=not is_internal, has_tokens=is_internal)


def fine_tuned_kind(config: Config, folder: RunFolder) -> RunKind:
    """Return the run that goes on from the zero-shot run beside it, on its reweighted samples.

    In internal coordinates it is the energy model that learns on, from the samples as they are.

    Args:
        config: Of the transferable run.
        folder: Of the fine-tuned run.
    """
    name = folder.path.name.removesuffix(FINE_TUNED) + ZERO_SHOT
    zero_shot = RunFolder(folder.path.with_name(name))
    if config.transferable.internal:
        return _tuned_energy_kind(zero_shot)
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


def _tuned_energy_kind(zero_shot: RunFolder) -> RunKind:
    """Return the run in which a shared energy model learns on from samples of one molecule."""
    adopted = {"simulate": "zero_shot_simulation", "train_emulator": "zero_shot_emulator"}
    inputs = {"generate": "samples/", "train_emulator": "emulator.pt", "zero_shot_energy": ""}
    specs = (
        *(
            StageSpec(stage, partial(adopt, name=name), (), {name: ""})
            for stage, name in adopted.items()
        ),
        STAGES[2],
        StageSpec(
            "train_energy", density.fine_tune_energy, ("fine_tuning", "shared_energy"), inputs
        ),
        STAGES[-1],
    )
    given = {
        "zero_shot_simulation": zero_shot.stage("simulate"),
        "zero_shot_emulator": zero_shot.stage("train_emulator"),
        "zero_shot_energy": zero_shot.stage("train_energy"),
    }
    return RunKind(specs, given, has_tokens=True)


def _asked(name: str) -> str:
    """Return the molecule that a variant's run is about."""
    return name.removesuffix(f"_{ZERO_SHOT}").removesuffix(f"_{FINE_TUNED}")


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


def _with_features(sequences: Sequence[str], features: FeatureSet) -> dict[str, Molecule]:
    molecules = {sequence: Molecule.unplaced(sequence) for sequence in sequences}
    for molecule in molecules.values():
        features.of_molecule(molecule)  # Refuses what has none.
    return molecules
