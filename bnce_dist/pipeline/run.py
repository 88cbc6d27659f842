"""Run the stages in order; skip what is finished, continue what is not."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.places import local_path
from bnce_dist.data.atomic import file_sha256
from bnce_dist.data.shards import MANIFEST
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.metrics import EvaluateConfig
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.artifact import Artifact, digest_of, move_aside
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.provenance import PeakMemory, commit, hardware, versions
from bnce_dist.pipeline.stages import evaluate, generate, simulate, train_emulator, train_energy
from bnce_dist.pipeline.stages.context import Stage, StageContext
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
        file_digest: Of the content of a file that the settings only name, if it reads one.
    """

    name: str
    run: Stage
    sections: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    file_digest: str = ""


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
        {"simulate": "umbrella/", "train_emulator": "emulator.pt", "train_energy": "energy.pt"},
    ),
)
STAGE_NAMES = tuple(spec.name for spec in STAGES)
_FORCE_FIELD = "target.force_field"
_READ_AFTERWARDS = {"num_bootstrap", "clip_fraction"}
"""Settings of ``evaluate`` that its stage does not read: numbers are made of it with them."""


@dataclass(frozen=True)
class RunKind:
    """What kind of run it is.

    Args:
        stages: In their order.
        given: Folders of other runs' finished stages, by the name under which stages read them.
        is_cartesian: Whether its models live in Cartesian coordinates.
        has_tokens: Whether they are of many molecules in internal coordinates.
    """

    stages: tuple[StageSpec, ...]
    given: Mapping[str, Path] = field(default_factory=dict)
    is_cartesian: bool = False
    has_tokens: bool = False


PER_MOLECULE = RunKind(STAGES)
"""From nothing to a free energy, in the internal coordinates of one molecule."""


@dataclass(frozen=True)
class Pipeline:
    """One run, ready to go.

    Args:
        config: Of the run.
        target: Built from ``config.target``.
        folder: Of the run; the caller holds its lock.
        executor: Does the work.
        tracker: With the parent run started.
        kind: The stages.
    """

    config: Config
    target: Target
    folder: RunFolder
    executor: Executor
    tracker: Tracker
    kind: RunKind = PER_MOLECULE

    def run(self, last_stage: str = STAGE_NAMES[-1]) -> dict[str, Any] | None:
        """Run up to a stage, each stage only if its folder is not finished already.

        Args:
            last_stage: Where to stop.

        Returns: How the results came about, for ``metrics.json``; nothing if the last stage was not
            reached.
        """
        self.folder.write_config(self.config)
        given = {name: Artifact.finished(folder) for name, folder in self.kind.given.items()}
        artifacts: dict[str, Artifact] = {}
        names = [spec.name for spec in self.kind.stages]
        for spec in self.kind.stages[: names.index(last_stage) + 1]:
            inputs = {name: (given | artifacts)[name] for name in spec.inputs}
            artifact = self._artifact(spec, inputs)
            if artifact.is_finished():
                logger.info("%s: finished before", spec.name)
            else:
                self._run_stage(spec, artifact, inputs)
            artifacts[spec.name] = artifact
            self._supersede_stale(given | artifacts)
        if last_stage != STAGE_NAMES[-1]:
            return None
        return {**_provenance(artifacts), "seed": self.config.seed}

    def _supersede_stale(self, done: Mapping[str, Artifact]) -> None:
        """Move aside what later stages made of other inputs or settings than there are now.

        Until its turn came it would be read beside what is new: an emulator and the density of the
        samples of another.
        """
        later = {spec.name: self.folder.stage(spec.name) for spec in self.kind.stages}
        there = {
            name: Artifact.finished(folder)
            for name, folder in later.items()
            if name not in done and Artifact.is_declared_finished(folder)
        }
        present = {**there, **done}
        stale = [
            spec.name
            for spec in self.kind.stages
            if spec.name in there
            and spec.inputs.keys() <= present.keys()
            and self._is_stale(spec, present)
        ]
        for name in stale:
            self._supersede_numbers()
            moved_to = move_aside(later[name], self.folder.superseded)
            logger.warning("%s: of other settings or inputs, now in %s", name, moved_to)

    def _is_stale(self, spec: StageSpec, inputs: Mapping[str, Artifact]) -> bool:
        try:
            return not self._artifact(spec, inputs).has_key()
        except InputError:
            return False  # An input is damaged, and may be the same again once it is made anew.

    def _supersede_numbers(self) -> None:
        """Move aside the result of before, which would pass for that of these settings."""
        if (metrics := self.folder.path / "metrics.json").exists():
            move_aside(metrics, self.folder.superseded)

    def _artifact(self, spec: StageSpec, inputs: Mapping[str, Artifact]) -> Artifact:
        """Return a stage's work; what an earlier version began or finished keeps its key."""
        folder = self.folder.stage(spec.name)
        for parts in self._keyed(spec, inputs):
            artifact = Artifact(folder, digest_of(parts))
            if artifact.has_key():
                break
        return artifact

    def _keyed(self, spec: StageSpec, inputs: Mapping[str, Artifact]) -> Iterator[dict[str, Any]]:
        """Yield what the key of a stage is made of: in earlier versions first, today last."""
        # Exact densities that an earlier version computed are of the heaviest samples: all of them,
        # or they would be mixed with those of others.
        exact = self.folder.stage(spec.name) / "exact" / MANIFEST
        if spec.run is evaluate.run and exact.exists():
            for parts in self._keyed_as_now(spec, inputs):
                yield {**parts, "settings": _as_before(parts["settings"])}
        yield from self._keyed_as_now(spec, inputs)

    def _keyed_as_now(
        self, spec: StageSpec, inputs: Mapping[str, Artifact]
    ) -> Iterator[dict[str, Any]]:
        parts = self._parts(spec)
        read = [(name, inputs[name], part) for name, part in spec.inputs.items()]
        labelled = {name: source.digest_with_labels(part) for name, source, part in read}
        yield {**parts, "inputs": labelled}
        parts["inputs"] = {name: source.digest(part) for name, source, part in read}
        files = self._file_digests(spec)
        some = {name: one for name, one in files.items() if not name.startswith(_FORCE_FIELD)}
        for known in (some, files):
            if known:
                parts["files"] = known
            yield {**parts}
        if spec.run is evaluate.run:
            unread = EvaluateConfig().model_dump(mode="json", include=_READ_AFTERWARDS)
            settings = {
                **parts["settings"],
                "evaluate": {**parts["settings"]["evaluate"], **unread},
            }
            yield {**parts, "settings": settings}

    def _file_digests(self, spec: StageSpec) -> dict[str, str]:
        """Return digests of the files of the user's that the stage's settings only name."""
        named = {
            "target.pdb": self.config.target.pdb,
            "reference.trajectory": self.config.reference.trajectory,
            "dataset.trajectory": self.config.dataset.trajectory,
        }
        if self.config.target.topology is None:
            files = [file for file in self.config.target.force_field if local_path(file).is_file()]
            named |= {f"{_FORCE_FIELD} {file}": file for file in files}
        digests = {}
        for setting, path in named.items():
            if path is not None and setting.partition(".")[0] in spec.sections:
                with as_input_error(partial(_unreadable, setting, path)):
                    digests[setting] = file_sha256(path)
        return digests

    def _parts(self, spec: StageSpec) -> dict[str, Any]:
        """Return what the key of a stage is made of besides its inputs."""
        parts: dict[str, Any] = {"stage": spec.name, "settings": self._settings(spec)}
        if spec.file_digest:
            parts["file"] = spec.file_digest
        if "target" in spec.sections and self.target.system_xml is not None:
            # What the files said, which the settings only name.
            parts["target"] = self.target.to_state()
        return parts

    def _settings(self, spec: StageSpec) -> dict[str, Any]:
        return self.config.model_dump(mode="json", include={"seed", *spec.sections})

    def _run_stage(
        self, spec: StageSpec, artifact: Artifact, inputs: Mapping[str, Artifact]
    ) -> None:
        logger.info("%s: started", spec.name)
        self._supersede_numbers()
        artifact.prepare(self.folder.superseded)
        context = StageContext(
            config=self.config,
            target=self.target,
            folder=artifact.folder,
            inputs={name: source.folder for name, source in inputs.items()},
            key=artifact.key,
            executor=self.executor,
            tracker=self.tracker,
        )
        started = time.monotonic()
        with self.tracker.stage(spec.name, self._settings(spec)), PeakMemory() as memory:
            try:
                spec.run(context)
            finally:
                self.executor.release()
            seconds = time.monotonic() - started
            self.tracker.log_metrics({"seconds": seconds})
        artifact.finish(
            {
                "settings": self._settings(spec),
                "seconds": seconds,
                "peak_memory_gb": memory.peak_bytes / 1e9,
                "commit": commit(),
                "versions": versions(),
                "hardware": hardware(),
            }
        )
        logger.info("%s: finished in %.0f s", spec.name, seconds)


def _as_before(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names of versions that gave the heaviest exact densities."""
    asked = {**settings["evaluate"]}
    asked["num_exact_top"] = asked.pop("num_exact_weighted")
    return {**settings, "evaluate": asked}


def _unreadable(setting: str, path: str, got: object) -> InputError:
    return InputError(
        f"{setting} {path}",
        expected="the file that the run is made of",
        got=got,
        remedy="put it where the setting says",
    )


def _provenance(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return how the results came about, also where a stage was finished by an earlier call."""
    records = {name: artifact.provenance for name, artifact in artifacts.items()}
    last = records[STAGE_NAMES[-1]]
    return {
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "peak_memory_gb": max(record["peak_memory_gb"] for record in records.values()),
        "commit": last["commit"],
        "versions": last["versions"],
        # Stages of version 0.1 did not write it down.
        "hardware": last.get("hardware", "unknown"),
    }
