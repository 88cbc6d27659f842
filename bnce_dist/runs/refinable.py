"""Whether a run may go on from another: finished, intact, of the same target, not its own past."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnce_dist.config.load import dotted_values, load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.architectures import build_energy_model, build_velocity_field
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.stages.annealing import ANNEALED

_TAKEN_OVER = {
    "simulate": "",
    "train_emulator": "emulator.pt",
    "train_energy": "energy.pt",
    "evaluate": f"{ANNEALED}/",
}
"""What of each stage of the run before is read again."""
_KEPT_SECTIONS = ("target", "reference", "dataset")


def require_refinable(config: Config, folder: RunFolder, before: RunFolder) -> None:
    """Refuse a run that cannot be refined, or not with these settings.

    Args:
        config: Of the run that goes on.
        folder: Of the run that goes on.
        before: The run that it goes on from.

    Raises: InputError: no finished run whose samples were annealed, one that is damaged or goes on
        from this one, one of another molecule or reference, models that cannot learn on, or the
        same seed.
    """
    what = f"refines={before.path}"
    if not (before.path / "metrics.json").exists():
        raise InputError(
            what,
            expected="the folder of a finished run of one molecule",
            got="no metrics.json in it",
            remedy="name that folder (of a fleet: FLEET/MOLECULE), or finish the run first",
        )
    settings = load_config(Config, before.config_path)
    _require_another(folder, before, what)
    config.dataset.require_both_sides()
    _require_annealed(before, what)
    emulator, density = _models(before, what)
    for stage, part in _TAKEN_OVER.items():
        artifact = Artifact.finished(before.stage(stage))
        artifact.require_intact(part)
        _require_as_made(settings, artifact, before)
    _require_same(config, settings, what)
    _require_same_models(config, emulator, density, what)


def _require_another(folder: RunFolder, before: RunFolder, what: str) -> None:
    """Refuse to write into the run before, or one that it came from."""
    for run in _line(before):
        if run.resolve() == folder.path.resolve():
            raise InputError(
                what,
                expected="another run, which does not go on from this one",
                got="the run itself" if run == before.path else f"one that goes on from {run}",
                remedy="choose another --name",
            )


def _line(run: RunFolder) -> Iterator[Path]:
    """Yield the folder of a run, of the one it goes on from, and so on."""
    seen: set[Path] = set()
    path: Path | None = run.path
    while path is not None and path.resolve() not in seen:
        yield path
        seen.add(path.resolve())
        config = RunFolder(path).config_path
        refines = load_config(Config, config).refines if config.exists() else None
        path = None if refines is None else Path(refines)


def _require_annealed(before: RunFolder, what: str) -> None:
    """Refuse samples that chains cannot start from."""
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


def _models(before: RunFolder, what: str) -> tuple[Emulator, LearnedDensity]:
    """Return the models that are to learn on."""
    emulator = Emulator.load(before.stage("train_emulator") / "emulator.pt")
    if not isinstance(emulator.velocity_field, InternalVelocity):
        raise InputError(
            what,
            expected="a run with an emulator of its molecule alone",
            got="one of a field for many molecules",
            remedy="run the molecule without --transferable first",
        )
    return emulator, LearnedDensity.load(before.stage("train_energy") / "energy.pt")


def _require_as_made(settings: Config, artifact: Artifact, before: RunFolder) -> None:
    """Refuse a configuration that does not say any more what the run was made with."""
    says = settings.model_dump(mode="json")
    for section, recorded in artifact.provenance["settings"].items():
        if section not in _KEPT_SECTIONS:
            continue
        for name, made_with in recorded.items():
            value: Any = says[section].get(name, made_with)
            if value != made_with:
                raise InputError(
                    f"{section}.{name} in {before.config_path}",
                    expected=f"{made_with}, with which {artifact.folder.name} was made",
                    got=value,
                    remedy="put that back, or finish that run with what it says now (--resume)",
                )


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


def _require_same_models(
    config: Config, emulator: Emulator, density: LearnedDensity, what: str
) -> None:
    """Refuse settings of other models than those that learn on."""
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
