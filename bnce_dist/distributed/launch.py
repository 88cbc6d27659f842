"""Which machines do a run's work: its executor, checked before anything expensive."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import build_energy_matching, build_flow_matching
from bnce_dist.generator.shared_architectures import (
    build_molecular_matching,
    build_shared_energy_matching,
    build_token_matching,
)
from bnce_dist.pipeline.cluster import ClusterConfig
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor, LocalExecutor
from bnce_dist.pipeline.run import STAGE_NAMES
from bnce_dist.runs.fleet.run import PreparedFleet, prepare_fleet
from bnce_dist.runs.molecule import PreparedRun, require_turning_torsions
from bnce_dist.training.settings import TrainingConfig

Training = tuple[TrainingConfig, Callable[[], nn.Module]]


def require_trainable(config: Config, last_stage: str, space: Space) -> None:
    """Refuse a strategy that cannot train what a run comes to.

    Args:
        config: Of the run.
        last_stage: Where it stops.
        space: What its models live in.

    Raises: InputError: it cannot, or it is not installed.
    """
    trainings = _trainings(config, space)
    for stage in STAGE_NAMES[: STAGE_NAMES.index(last_stage) + 1]:
        for section, build_objective in trainings.get(stage, ()):
            config.cluster.require_supported(build_objective, section.with_seed(config.seed))


def _trainings(config: Config, space: Space) -> dict[str, list[Training]]:
    """Return what is trained in a stage, by its settings and what makes its objective."""
    energy: Training = (config.energy, partial(build_energy_matching, config.energy, space))
    if space.tokens is not None:
        shared, tokens = config.shared_energy, [space.tokens]
        build = partial(build_token_matching, config.transferable, config.token_field, tokens)
        energies = [energy]
        if shared.enabled:
            build_energy = partial(build_shared_energy_matching, shared, tokens)
            tuned = [(config.fine_tuning, build_energy)] if shared.fine_tunes else []
            energies = [(shared, build_energy), *tuned]
        return {"train_emulator": [(config.transferable, build)], "train_energy": energies}
    if space.node_features is not None:
        atoms = [space.node_features]
        build_field = partial(build_molecular_matching, config.transferable, atoms)
        sections = (config.transferable, config.fine_tuning)
        emulators: list[Training] = [(section, build_field) for section in sections]
        return {"train_emulator": emulators, "train_energy": [energy]}
    build_emulator = partial(build_flow_matching, config.emulator, space)
    return {"train_emulator": [(config.emulator, build_emulator)], "train_energy": [energy]}


def create_executor(cluster: ClusterConfig, default: Literal["ray", "local"] = "ray") -> Executor:
    """Return the executor of a configuration's ``cluster`` section.

    Args:
        cluster: The section.
        default: Where the work runs if the section does not say.

    Raises: InputError: the cluster cannot be reached or is too small.
    """
    if (cluster.executor or default) == "local":
        return LocalExecutor(cluster.accumulation_steps)
    # Ray takes seconds to import, which a run in this process should not wait for.
    from bnce_dist.distributed.executor import RayExecutor

    return RayExecutor(
        cluster.num_workers,
        cluster,
        min_workers=cluster.min_workers,
        require_gpus=cluster.require_gpus,
        resources=cluster,
        max_failures=cluster.max_failures,
    )


def executor_for(run: PreparedRun, last_stage: str = STAGE_NAMES[-1]) -> Executor:
    """Return the executor of a run's ``cluster`` section.

    Args:
        run: The run, or the largest of several.
        last_stage: Where it stops.

    Raises: InputError: the cluster cannot be used, or not for the run's models, or one of its
        nodes is not fit for the run, or a biased torsion is stiff.
    """
    require_turning_torsions(run.target, last_stage, run.plan.space)
    require_trainable(run.config, last_stage, run.plan.space)
    executor = create_executor(run.config.cluster)
    _require_sound_nodes(run)
    return executor


def fleet_with_executor(
    config: Config,
    sequences: str,
    folder: Path,
    *,
    resume: bool = False,
    last_stage: str = STAGE_NAMES[-1],
) -> tuple[PreparedFleet, Executor]:
    """Prepare a fleet on the workers of its ``cluster`` section, which then run it.

    Args:
        config: Of every member, but for the molecule.
        sequences: See `prepare_fleet`.
        folder: Of the fleet.
        resume: See `prepare_fleet`.
        last_stage: Where every member stops.

    Raises: InputError: as `prepare_fleet` and `executor_for`.
    """
    executor = create_executor(config.cluster)
    fleet = prepare_fleet(config, sequences, folder, executor, resume=resume)
    for run in fleet.runs.values():
        require_turning_torsions(run.target, last_stage, run.plan.space)
    require_trainable(config, last_stage, fleet.largest.plan.space)
    _require_sound_nodes(fleet.largest)
    return fleet, executor


def _require_sound_nodes(run: PreparedRun) -> None:
    if run.config.cluster.executor == "ray":
        from bnce_dist.distributed.preflight import require_sound_nodes

        require_sound_nodes(run.config, run.folder.path.parent, run.plan)
