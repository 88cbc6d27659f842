"""Which stages run when: with stages that only write what they were given."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline import run as run_module
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.pipeline.run import STAGES, Pipeline, RunKind, StageSpec
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.tracking.tracker import Tracker


class FakeStages:
    """Stages a -> b -> c; b reads one of a's two files; each counts its runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fail_in: str | None = None

    def specs(self) -> tuple[StageSpec, ...]:
        return (
            StageSpec("a", self.stage("a", ("dataset", "reference")), ("dataset", "reference")),
            StageSpec("b", self.stage("b", ("emulator",)), ("emulator",), {"a": "dataset"}),
            StageSpec("c", self.stage("c", ("energy",)), ("energy",), {"b": ""}),
        )

    def stage(self, name: str, sections: tuple[str, ...]) -> Callable[[StageContext], None]:
        def run(context: StageContext) -> None:
            self.ran.append(name)
            settings = context.config.model_dump(mode="json")
            for section in sections:
                text = json.dumps(settings[section])
                (context.folder / section).write_text(text)
                data = context.folder / f"{section}_data"
                metadata = DatasetMetadata("molecule", {"x": "1"}, {"key": context.key})
                write_shard(data, 0, {"x": np.frombuffer(text.encode(), np.uint8)}, metadata)
                ShardedDataset.finish(data, 1, metadata)
            if self.fail_in == name:
                raise KeyboardInterrupt
            for source, folder in context.inputs.items():
                (context.folder / f"from_{source}").write_text(
                    "".join(
                        path.read_text() for path in sorted(folder.glob("[!a]*")) if path.is_file()
                    )
                )

        return run


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fake = FakeStages()
    monkeypatch.setattr(run_module, "PER_MOLECULE", RunKind(fake.specs()))
    monkeypatch.setattr(run_module, "STAGE_NAMES", ("a", "b", "c"))
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def execute(folder: RunFolder, *overrides: str, last_stage: str = "c") -> dict | None:
    config = load_config(Config, None, overrides)
    kind = run_module.PER_MOLECULE
    return Pipeline(config, None, folder, LocalExecutor(), Tracker(), kind).run(last_stage)


def test_stages_run_in_order_once(stages: FakeStages, folder: RunFolder) -> None:
    execute(folder)
    execute(folder)
    assert stages.ran == ["a", "b", "c"]


def test_metrics_come_with_their_provenance(stages: FakeStages, folder: RunFolder) -> None:
    metrics = execute(folder)
    assert metrics == json.loads(json.dumps(metrics))
    assert set(metrics["seconds"]) == {"a", "b", "c"}
    assert metrics["seed"] == 0
    assert metrics["versions"]["torch"]
    assert metrics["peak_memory_gb"] > 0
    assert load_config(Config, folder.config_path) == Config()


def test_an_interrupted_stage_is_repeated_and_those_before_are_not(
    stages: FakeStages, folder: RunFolder
) -> None:
    stages.fail_in = "b"
    with pytest.raises(KeyboardInterrupt):
        execute(folder)
    stages.fail_in = None
    execute(folder)
    assert stages.ran == ["a", "b", "b", "c"]
    assert not folder.superseded.exists()


def test_a_changed_setting_reruns_the_stages_it_affects(
    stages: FakeStages, folder: RunFolder
) -> None:
    execute(folder)
    stages.ran.clear()
    execute(folder, "energy.width=64")
    assert stages.ran == ["c"]
    assert [path.name for path in folder.superseded.iterdir()] == ["c-1"]
    stages.ran.clear()
    execute(folder, "emulator.width=64", "energy.width=64")
    assert stages.ran == ["b", "c"]


def test_numbers_do_not_outlive_the_work_that_they_are_of(
    stages: FakeStages, folder: RunFolder
) -> None:
    execute(folder)
    numbers = folder.path / "metrics.json"
    numbers.write_text("of before")
    execute(folder)
    assert numbers.exists()
    stages.fail_in = "b"
    with pytest.raises(KeyboardInterrupt):
        execute(folder, "emulator.width=64")
    assert not numbers.exists()
    assert (folder.superseded / "metrics-1.json").read_text() == "of before"
    assert (folder.superseded / "b-1").is_dir()


def test_stale_work_is_not_left_beside_what_replaced_its_inputs(
    stages: FakeStages, folder: RunFolder
) -> None:
    execute(folder)
    execute(folder, "reference.num_tasks=7", last_stage="a")
    assert folder.stage("b").exists()
    assert folder.stage("c").exists()
    execute(folder, "emulator.width=64", last_stage="b")
    assert not folder.stage("c").exists()
    assert (folder.superseded / "c-1").exists()
    stages.ran.clear()
    execute(folder, "emulator.width=64")
    assert stages.ran == ["c"]
    (folder.path / "metrics.json").write_text("of before")
    execute(folder, "emulator.width=64", "energy.width=64", last_stage="b")
    assert not folder.stage("c").exists()
    assert not (folder.path / "metrics.json").exists()


def test_a_part_of_a_stage_that_did_not_change_reruns_nothing_below(
    stages: FakeStages, folder: RunFolder
) -> None:
    execute(folder)
    stages.ran.clear()
    execute(folder, "reference.num_tasks=7")
    assert stages.ran == ["a"]


def test_work_of_an_earlier_version_is_not_repeated(
    stages: FakeStages, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(Artifact, "digest", Artifact.digest_with_labels)
        execute(folder)
    stages.ran.clear()
    execute(folder)
    assert stages.ran == []
    execute(folder, "emulator.width=64")
    execute(folder, "emulator.width=64")
    assert stages.ran == ["b", "c"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_an_evaluation_of_the_heaviest_is_kept_if_all_its_exact_densities_are_there(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, is_finished: bool
) -> None:
    ran = []

    def run(context: StageContext) -> None:
        ran.append(context.key)
        if is_finished or len(ran) > 1:
            ShardedDataset.finish(context.folder / "exact", 0, DatasetMetadata("molecule", {}))
        elif len(ran) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module.evaluate, "run", run)
    spec = StageSpec("evaluate", run, ("evaluate",))
    monkeypatch.setattr(run_module, "PER_MOLECULE", RunKind((spec,)))
    monkeypatch.setattr(run_module, "STAGE_NAMES", ("evaluate",))
    now = Pipeline._settings
    with monkeypatch.context() as earlier, contextlib.suppress(KeyboardInterrupt):
        earlier.setattr(
            Pipeline, "_settings", lambda self, spec: run_module._as_before(now(self, spec))
        )
        earlier.setattr(run_module, "_as_before", dict)
        execute(folder, last_stage="evaluate")
    execute(folder, last_stage="evaluate")
    assert len(ran) == (1 if is_finished else 2)
    execute(folder, last_stage="evaluate")
    assert len(ran) == (1 if is_finished else 2)


def test_a_file_that_was_replaced_is_read_again(
    stages: FakeStages, folder: RunFolder, tmp_path: Path
) -> None:
    path = tmp_path / "frames.dcd"
    path.write_text("a short one")
    setting = f"dataset.trajectory={path}"
    execute(folder, setting)
    execute(folder, setting)
    assert stages.ran == ["a", "b", "c"]
    path.write_text("a longer one")
    execute(folder, setting)
    assert stages.ran == ["a", "b", "c", "a"]
    path.unlink()
    with pytest.raises(InputError, match=r"dataset.trajectory .*frames.dcd: .* No such file"):
        execute(folder, setting)
    assert [one.name for one in folder.superseded.iterdir()] == ["a-1"]


def test_the_seed_affects_everything(stages: FakeStages, folder: RunFolder) -> None:
    execute(folder)
    execute(folder, "seed=1")
    assert stages.ran == ["a", "b", "c", "a", "b", "c"]


def test_cluster_and_tracking_affect_nothing(stages: FakeStages, folder: RunFolder) -> None:
    execute(folder)
    execute(folder, "cluster.num_workers=1", "tracking.backend=none")
    assert stages.ran == ["a", "b", "c"]


@pytest.mark.parametrize("file", ["emulator", "emulator_data/manifest.json"])
def test_a_damaged_artifact_is_made_again(stages: FakeStages, folder: RunFolder, file: str) -> None:
    execute(folder)
    stages.ran.clear()
    path = folder.stage("b") / file
    path.write_text(path.read_text()[:5])
    execute(folder)
    # What b leaves is the same again, so c stays.
    assert stages.ran == ["b"]


def test_the_provenance_is_that_of_the_call_that_computed(
    stages: FakeStages, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute(folder)
    monkeypatch.setattr(run_module, "commit", lambda: "a later commit")
    assert execute(folder) == first


def test_a_stage_reads_what_another_run_left(
    stages: FakeStages, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RunFolder(folder.path.parent / "other")
    reader = StageSpec("d", stages.stage("d", ()), (), {"elsewhere": "emulator"})
    kind = RunKind((reader,), {"elsewhere": other.stage("b")})

    def read_other() -> None:
        Pipeline(Config(), None, folder, LocalExecutor(), Tracker(), kind).run("d")

    with pytest.raises(InputError, match="expected a finished stage, got none"):
        read_other()
    execute(other, last_stage="b")
    read_other()
    read_other()
    assert stages.ran == ["a", "b", "d"]
    text = (folder.stage("d") / "from_elsewhere").read_text()
    assert (other.stage("b") / "emulator").read_text() in text
    execute(other, "emulator.width=64", last_stage="b")
    read_other()
    assert stages.ran == ["a", "b", "d", "b", "d"]


def test_stopping_after_a_stage(stages: FakeStages, folder: RunFolder) -> None:
    assert execute(folder, last_stage="b") is None
    assert stages.ran == ["a", "b"]
    assert not (folder.path / "metrics.json").exists()


def key_of_evaluate(folder: RunFolder, *overrides: str) -> str:
    target = SimpleNamespace(system_xml=None)
    config = load_config(Config, None, overrides)
    pipeline = Pipeline(config, target, folder, LocalExecutor(), Tracker())  # type: ignore[arg-type]
    inputs = SimpleNamespace(digest=lambda part: "same", digest_with_labels=lambda part: "same")
    return pipeline._artifact(STAGES[-1], defaultdict(lambda: inputs)).key  # type: ignore[arg-type]


def test_an_edited_force_field_is_another_one(folder: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "mine.xml"
    keys = set()
    for content in ("<ForceField/>", "<ForceField> </ForceField>", "<ForceField/>"):
        file.write_text(content)
        keys.add(key_of_evaluate(folder, f"target.force_field=[{file}]"))
    assert len(keys) == 2


def test_what_numbers_are_made_with_leaves_the_samples_as_they_are(folder: RunFolder) -> None:
    settings = ("evaluate.num_bootstrap=2000", "evaluate.clip_fraction=0.01")
    assert key_of_evaluate(folder, *settings) == key_of_evaluate(folder)
    assert key_of_evaluate(folder, "evaluate.num_exact=300") != key_of_evaluate(folder)
