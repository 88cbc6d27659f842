"""The jobs a sweep can run: what they report, and how one trial of them is run."""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from bnce_dist.chem.order_parameters import require_turning
from bnce_dist.data.atomic import write_json
from bnce_dist.generator.architectures import EnergyConfig, space_of
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.results import load_evaluation, run_metrics
from bnce_dist.pipeline.run import STAGE_NAMES, STAGES, Pipeline
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.run import run_planar
from bnce_dist.tracking.tracker import Tracker

JobConfig = Config | PlanarConfig


class Job(ABC):
    """A job as a sweep sees it.

    Its configuration's ``schema``; numbers that its ``metrics.json`` holds, ``metrics``; and
    those that the energy model's training reports at every checkpoint, ``records``.
    """

    schema: ClassVar[type[JobConfig]]
    metrics: ClassVar[tuple[str, ...]]
    records: ClassVar[tuple[str, ...]]

    @abstractmethod
    def energy(self, config: Any) -> EnergyConfig:
        """Return how the energy model is trained."""

    @abstractmethod
    def prepare(
        self,
        config: Any,
        keys: Collection[str],
        folder: Path,
        executor: Executor,
        tracker: Tracker,
    ) -> None:
        """Compute once what all trials share.

        Args:
            config: What the trials have in common.
            keys: Settings that differ between them.
            folder: Where it goes.
            executor: Does the work.
            tracker: With the sweep's run started.
        """

    @abstractmethod
    def run(self, config: Any, shared: Path, folder: Path, executor: Executor) -> dict[str, Any]:
        """Run or continue one trial and return its ``metrics.json``.

        Args:
            config: Of the trial.
            shared: The folder that `prepare` filled.
            folder: Of the trial alone.
            executor: Does the work.
        """


class PlanarJob(Job):
    """``jobs/planar.py``: a planar system."""

    schema = PlanarConfig
    metrics = ("kl_grid", "kl_normalised", "log_z_error", "cpu_seconds", "steps")
    records = ("loss", "score", "infonce", "kl_grid", "kl_normalised")

    def energy(self, config: PlanarConfig) -> EnergyConfig:
        """Return how the energy model is trained."""
        return config.energy_of_objective

    def prepare(self, *_: object) -> None:
        """Do nothing: a trial has a single stage."""

    def run(
        self, config: PlanarConfig, shared: Path, folder: Path, executor: Executor
    ) -> dict[str, Any]:
        """Run or continue one trial."""
        return run_planar(config, folder, executor)


class TrainJob(Job):
    """``jobs/train.py``: from a molecule to a free-energy difference."""

    schema = Config
    metrics = (
        "delta_f_kT",
        "delta_f_stderr_kT",
        "delta_f_learned_kT",
        "delta_f_exact_kT",
        "ess_fraction",
        "ess_fraction_clipped",
        "pareto_k",
        "log_z",
        "log_density_rmse_kT",
        "speedup_over_exact",
        "peak_memory_gb",
    )
    records = ("loss", "score", "infonce")

    def energy(self, config: Config) -> EnergyConfig:
        """Return how the energy model is trained."""
        return config.energy

    def prepare(
        self,
        config: Config,
        keys: Collection[str],
        folder: Path,
        executor: Executor,
        tracker: Tracker,
    ) -> None:
        """Run the stages that come before the first one with differing settings."""
        if stages := shared_stages(keys):
            target = Target.from_config(config.target)
            space_of(target.molecule, is_cartesian=False)  # Refuses what has no such space.
            require_turning(target.molecule)
            Pipeline(config, target, RunFolder(folder), executor, tracker).run(stages[-1])

    def run(self, config: Config, shared: Path, folder: Path, executor: Executor) -> dict[str, Any]:
        """Run or continue one trial from the shared stages on."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in STAGE_NAMES:
            link = folder / name
            if (shared / name).exists() and not link.exists():
                link.symlink_to(os.path.relpath(shared / name, folder))
        target = Target.from_config(config.target)
        run_folder = RunFolder(folder)
        provenance = Pipeline(config, target, run_folder, executor, Tracker()).run()
        evaluation = load_evaluation(run_folder, target, config.other_temperatures_kelvin)
        metrics = run_metrics(evaluation, config, target)
        metrics |= provenance or {}
        write_json(folder / "metrics.json", metrics)
        return metrics


JOBS: dict[str, Job] = {"planar": PlanarJob(), "train": TrainJob()}


def shared_stages(keys: Collection[str]) -> tuple[str, ...]:
    """Return the pipeline's stages before the first that depends on one of the settings."""
    sections = {key.partition(".")[0] for key in keys}
    affected = (bool(sections & {"seed", *spec.sections}) for spec in STAGES)
    return STAGE_NAMES[: next(index for index, is_affected in enumerate(affected) if is_affected)]
