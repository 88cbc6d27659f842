"""The command line of the pipeline: checks first, then one call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import (
    FAILED,
    UNRELIABLE,
    begin_work,
    errors_as_one_line,
    place,
    require_printable,
    run_path,
)
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.core.errors import InputError
from bnce_dist.distributed.launch import executor_for, fleet_with_executor
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.plan import Plan, space_of_run
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.pipeline.stages.trajectory import check_trajectories
from bnce_dist.pipeline.summary import summary
from bnce_dist.runs.fleet.members import Member, Outcome, members_of
from bnce_dist.runs.fleet.run import combined_error, run_fleet
from bnce_dist.runs.fleet.table import fleet_record, fleet_table
from bnce_dist.runs.molecule import prepare, require_turning_torsions, run_molecule
from bnce_dist.runs.refined import refined_kind
from bnce_dist.runs.transferable.run import (
    check_molecules,
    prepare_transferable,
    run_transferable,
    with_given_field,
)

DEFAULT_NAME = "alanine_dipeptide"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce train --name seed7 seed=7")
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings that win over the file, e.g. seed=7."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file; what it leaves out keeps its default.", parser=place),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run; by default that of the file, else of the molecule."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.", parser=place)] = Path(
        "runs"
    ),
    molecules: Annotated[
        str | None,
        typer.Option(
            help="Sequences separated by commas, or a file with one a line or in FASTA: one run "
            "each, side by side, and one table."
        ),
    ] = None,
    transferable: Annotated[
        bool,
        typer.Option(
            "--transferable",
            help="One model, trained on transferable.training_molecules, for all of --molecules: "
            "as it is and fine-tuned. With transferable.internal=true it is a shared energy model "
            "that is fine-tuned (shared_energy.enabled, shared_energy.fine_tunes).",
        ),
    ] = False,
    refine: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on from this finished run with its settings: training data start in its "
            "annealed samples, its models learn on.",
            parser=place,
        ),
    ] = None,
    stage: Annotated[
        str, typer.Option(help=f"Stop after this stage: {', '.join(STAGE_NAMES)}.")
    ] = STAGE_NAMES[-1],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a run whose configuration changed: redo the stages affected.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 3 if the result is unreliable.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one line of JSON.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and start nothing.")
    ] = False,
) -> None:
    """From a molecule to a free-energy difference: simulate, train, sample, reweight.

    The same command again continues an interrupted run; finished stages are not repeated.
    """
    with errors_as_one_line():
        if refine is not None:
            _require_settings_of_run(refine, config, molecules, overrides or [], transferable)
            resolved = _refining(refine, overrides or [])
            default_name = f"{refine.resolve().name}_refined"
        else:
            resolved = load_config(Config, config, overrides or [])
            default_name = _default_name(config, molecules, resolved.target)
        if resolved.refines is not None:
            # The same command again, from another folder, is still the same run.
            before = str(Path(resolved.refines).resolve())
            resolved = resolved.model_copy(update={"refines": before})
        path = run_path(output, name or default_name)
        _require_stage(stage)
        require_printable(dry_run, as_json)
        if transferable:
            _require_whole_fleet(molecules, stage)
            resolved = with_given_field(resolved)
        elif resolved.transferable.internal:
            raise InputError(
                "configuration with transferable.internal=true",
                expected="--transferable",
                got="a run without it",
                remedy="add --transferable and --molecules, or set transferable.internal=false",
            )
        if dry_run and molecules is not None:
            members = members_of(molecules, resolved, path)
            if transferable:
                check_molecules(resolved, [member.name for member in members])
            _print_plans(resolved, members, stage, is_transferable=transferable)
        elif dry_run:
            lines = _plan(resolved, RunFolder(path), stage)
            typer.echo("\n".join([to_yaml(resolved), *lines]))
        elif molecules is not None:
            outcomes = (
                _run_transferable(resolved, molecules, path, resume)
                if transferable
                else _run_fleet(resolved, molecules, path, stage, resume)
            )
            typer.echo(json.dumps(fleet_record(outcomes)) if as_json else fleet_table(outcomes))
            _exit_if_bad(outcomes, strict)
        else:
            outcome = _run(resolved, RunFolder(path), stage, resume)
            if outcome.metrics is not None:
                metrics = outcome.metrics
                typer.echo(json.dumps(metrics) if as_json else summary(metrics, path))
            _exit_if_bad([outcome], strict)


def _require_settings_of_run(
    refine: Path,
    config: Path | None,
    molecules: str | None,
    overrides: Sequence[str],
    transferable: bool,
) -> None:
    """Refuse other sources of settings beside the run that is refined."""
    other = next((text for text in overrides if text.startswith("refines=")), None)
    given = {"--config": config, "--molecules": molecules, "refines": other}
    if transferable:
        raise InputError(
            f"--refine {refine} with --transferable",
            expected="a run of one molecule",
            got="one field for many",
            remedy="leave --transferable out",
        )
    for option, value in given.items():
        if value is not None:
            raise InputError(
                f"--refine {refine} with {option}",
                expected="the settings of that run, and what differs as KEY=VALUE",
                got=value if option == "refines" else f"{option} {value}",
                remedy=f"leave {option} out, or set refines={refine} instead of --refine",
            )
    if not RunFolder(refine).config_path.exists():
        raise InputError(
            f"--refine {refine}",
            expected="the folder of a finished run",
            got="no config.yaml in it",
            remedy="name the folder of one molecule's run (of a fleet: FLEET/MOLECULE)",
        )


def _refining(refine: Path, overrides: Sequence[str]) -> Config:
    """Return the settings of a run that goes on from another, with other noise."""
    path = RunFolder(refine).config_path
    before = load_config(Config, path)
    resolved = load_config(Config, path, [f"seed={before.seed + 1}", *overrides])
    return resolved.model_copy(update={"refines": str(refine)})


def _run(config: Config, folder: RunFolder, last_stage: str, resume: bool) -> Outcome:
    """Run one molecule."""
    begin_work()
    run = prepare(config, folder, resume=resume)
    metrics = run_molecule(run, executor_for(run, last_stage), last_stage=last_stage)
    return Outcome(folder.path.name, metrics)


def _run_fleet(
    config: Config, sequences: str, folder: Path, last_stage: str, resume: bool
) -> list[Outcome]:
    """Run many molecules."""
    begin_work()
    fleet, executor = fleet_with_executor(
        config, sequences, folder, resume=resume, last_stage=last_stage
    )
    return run_fleet(fleet, executor, last_stage=last_stage)


def _run_transferable(config: Config, sequences: str, folder: Path, resume: bool) -> list[Outcome]:
    """Train one field and ask it about many molecules."""
    begin_work()
    run = prepare_transferable(config, sequences, folder, resume=resume)
    first, *_ = run.zero_shot.values()
    return run_transferable(run, executor_for(first))


def _exit_if_bad(outcomes: Sequence[Outcome], strict: bool) -> None:
    """End with the exit code that the outcomes deserve."""
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(FAILED)
    if strict and not all(o.metrics["reliable"] for o in outcomes if o.metrics is not None):
        raise typer.Exit(UNRELIABLE)


def _default_name(config: Path | None, molecules: str | None, target: TargetConfig) -> str:
    """Return the name of the configuration, else that of the molecule."""
    if config is not None:
        return config.stem
    if molecules is not None:
        return "fleet"
    if file := target.pdb or target.topology:
        return Path(file).stem
    is_default = target.sequence == TargetConfig().sequence
    return DEFAULT_NAME if is_default else str(target.sequence).lower()


def _require_stage(name: str) -> None:
    if name not in STAGE_NAMES:
        raise InputError(
            "--stage", expected=f"one of {', '.join(STAGE_NAMES)}", got=name, remedy="choose one"
        )


def _require_whole_fleet(molecules: str | None, stage: str) -> None:
    if molecules is None or stage != STAGE_NAMES[-1]:
        raise InputError(
            "--transferable",
            expected="--molecules, and no --stage",
            got="no --molecules" if molecules is None else f"--stage {stage}",
            remedy="name the molecules to ask about, e.g. --molecules AC,ET"
            if molecules is None
            else "leave out --stage",
        )


def _print_plans(
    config: Config, members: Sequence[Member], last_stage: str, *, is_transferable: bool
) -> None:
    """Print the settings once, then what every member comes to."""
    plans: dict[str, list[str]] = {}
    errors: dict[str, Exception] = {}
    for member in members:
        try:
            plans[member.name] = _plan(member.config, member.folder, last_stage, is_transferable)
        except InputError as error:
            errors[member.name] = error
    if errors:
        raise combined_error(errors, len(members))
    typer.echo(to_yaml(config))
    for name, lines in plans.items():
        typer.echo("\n".join([f"# {name}", *lines]))


def _plan(
    config: Config, folder: RunFolder, last_stage: str, is_transferable: bool = False
) -> list[str]:
    """Return what a run comes to, in comments."""
    if config.refines is not None:
        refined_kind(config, folder)
    target = Target.from_config(config.target)
    check_trajectories(config, target)
    space = space_of_run(config, target.molecule, is_transferable=is_transferable)
    require_turning_torsions(target, last_stage, space)
    lines = Plan.of(config, target, space).lines()
    if is_transferable and config.shared_energy.enabled:
        lines = [line for line in lines if not line.startswith("energy model:")]
        fine_tunes = ", fine-tuned to this one" if config.shared_energy.fine_tunes else ""
        lines.append(f"energy model: that of all molecules{fine_tunes}")
    if is_transferable and config.transferable.field is not None:
        lines = [line for line in lines if not line.startswith("emulator:")]
        lines.append(f"emulator: that of {config.transferable.field}")
    return [f"# {line}" for line in (*lines, f"output: {folder.path}")]
