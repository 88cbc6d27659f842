"""Run the stages in order; skip what is finished, continue what is not."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnce_dist.data.atomic import write_json
from bnce_dist.pipeline.artifact import Artifact, digest_of
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.folder import RunFolder
from bnce_dist.pipeline.memory import PeakMemory
from bnce_dist.pipeline.provenance import commit, versions
from bnce_dist.pipeline.results import load_metrics
from bnce_dist.pipeline.stages import evaluate, generate, simulate, train_emulator, train_energy
from bnce_dist.pipeline.stages.context import Stage, StageContext
from bnce_dist.pipeline.target import Target
from bnce_dist.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSpec:
    """A stage and what its content depends on.

    Args:
        name: Also that of its folder.
        run: The stage.
        sections: Settings it reads, besides the seed.
        inputs: The part of each earlier stage's folder that it reads.
    """

    name: str
    run: Stage
    sections: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)


STAGES = (
    StageSpec("simulate", simulate.run, ("target", "reference", "dataset")),
    StageSpec("train_emulator", train_emulator.run, ("emulator",), {"simulate": "dataset/"}),
    StageSpec("generate", generate.run, ("generate",), {"train_emulator": "emulator.pt"}),
    StageSpec(
        "train_energy",
        train_energy.run,
        ("energy",),
        {"generate": "samples/", "train_emulator": "emulator.pt"},
    ),
    StageSpec(
        "evaluate",
        evaluate.run,
        ("target", "evaluate"),
        {"train_emulator": "emulator.pt", "train_energy": "energy.pt"},
    ),
)
STAGE_NAMES = tuple(spec.name for spec in STAGES)


def run_pipeline(
    config: Config,
    target: Target,
    folder: RunFolder,
    executor: Executor,
    tracker: Tracker,
    last_stage: str = STAGE_NAMES[-1],
) -> dict[str, Any] | None:
    """Run up to a stage, each stage only if its folder is not finished already.

    Args:
        config: Of the run.
        target: Built from ``config.target``.
        folder: Of the run; the caller holds its lock.
        executor: Does the work.
        tracker: With the parent run started.
        last_stage: Where to stop.

    Returns: The content of ``metrics.json``; nothing if the last stage was not reached.
    """
    folder.write_config(config)
    artifacts: dict[str, Artifact] = {}
    with PeakMemory() as memory:
        for spec in STAGES[: STAGE_NAMES.index(last_stage) + 1]:
            artifact = Artifact(folder.stage(spec.name), _key(spec, config, artifacts))
            if artifact.is_finished():
                logger.info("%s: finished before", spec.name)
            else:
                _run_stage(spec, artifact, config, target, folder, executor, tracker)
            artifacts[spec.name] = artifact
    if last_stage != STAGE_NAMES[-1]:
        return None
    metrics = load_metrics(folder, config, target) | {
        "seconds": {name: artifact.provenance["seconds"] for name, artifact in artifacts.items()},
        "peak_memory_gb": memory.peak_bytes / 1e9,
        "seed": config.seed,
        "commit": commit(),
        "versions": versions(),
    }
    write_json(folder.path / "metrics.json", metrics)
    return metrics


def _key(spec: StageSpec, config: Config, artifacts: Mapping[str, Artifact]) -> str:
    settings = config.model_dump(mode="json", include={"seed", *spec.sections})
    inputs = {name: artifacts[name].digest(part) for name, part in spec.inputs.items()}
    return digest_of({"stage": spec.name, "settings": settings, "inputs": inputs})


def _run_stage(
    spec: StageSpec,
    artifact: Artifact,
    config: Config,
    target: Target,
    folder: RunFolder,
    executor: Executor,
    tracker: Tracker,
) -> None:
    settings = config.model_dump(mode="json", include={"seed", *spec.sections})
    artifact.prepare(folder.superseded)
    inputs = {name: folder.stage(name) for name in spec.inputs}
    logger.info("%s: started", spec.name)
    started = time.monotonic()
    with tracker.stage(spec.name, settings):
        spec.run(
            StageContext(config, target, artifact.folder, inputs, artifact.key, executor, tracker)
        )
        seconds = time.monotonic() - started
        tracker.log_metrics({"seconds": seconds})
    provenance = {"settings": settings, "seconds": seconds, "versions": versions()}
    artifact.finish(provenance | {"commit": commit()})
    logger.info("%s: finished in %.0f s", spec.name, seconds)
