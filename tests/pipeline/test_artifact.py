from pathlib import Path

import numpy as np
import pytest

from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.pipeline.artifact import Artifact, digest_of


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "run" / "generate", key="k1")


def build(artifact: Artifact, text: str = "content") -> None:
    artifact.prepare(artifact.folder.parent / "superseded")
    (artifact.folder / "part").mkdir(exist_ok=True)
    (artifact.folder / "part" / "a.txt").write_text(text)
    (artifact.folder / "b.txt").write_text("other")
    artifact.finish({"seconds": 1.0})


def superseded(artifact: Artifact) -> list[str]:
    folder = artifact.folder.parent / "superseded"
    return sorted(path.name for path in folder.glob("*"))


def test_work_is_finished_only_after_finish(artifact: Artifact) -> None:
    assert not artifact.is_finished()
    artifact.prepare(artifact.folder.parent / "superseded")
    assert not artifact.is_finished()
    build(artifact)
    assert artifact.is_finished()
    assert artifact.provenance == {"seconds": 1.0}


def test_unfinished_work_of_the_same_key_is_kept(artifact: Artifact) -> None:
    artifact.prepare(artifact.folder.parent / "superseded")
    (artifact.folder / "checkpoint.pt").write_text("half way")
    artifact.prepare(artifact.folder.parent / "superseded")
    assert (artifact.folder / "checkpoint.pt").read_text() == "half way"
    assert superseded(artifact) == []


@pytest.mark.parametrize("finished", [True, False])
def test_work_of_another_key_is_moved_aside_not_deleted(artifact: Artifact, finished: bool) -> None:
    build(artifact)
    if not finished:
        (artifact.folder / "artifact.json").unlink()
    other = Artifact(artifact.folder, key="k2")
    assert not other.is_finished()
    build(other, "new")
    assert superseded(artifact) == ["generate-1"]
    old = artifact.folder.parent / "superseded" / "generate-1"
    assert (old / "part" / "a.txt").read_text() == "content"
    build(Artifact(artifact.folder, key="k3"))
    assert superseded(artifact) == ["generate-1", "generate-2"]


@pytest.mark.parametrize("damage", ["truncate", "delete", "record"])
def test_damaged_work_is_not_finished(artifact: Artifact, damage: str) -> None:
    build(artifact)
    path = artifact.folder / "part" / "a.txt"
    if damage == "truncate":
        path.write_text("cont")
    elif damage == "delete":
        path.unlink()
    else:
        record = artifact.folder / "artifact.json"
        record.write_text(record.read_text()[:-20])
    assert not artifact.is_finished()
    build(artifact)
    assert artifact.is_finished()
    assert superseded(artifact) == ["generate-1"]


def test_digest_follows_the_content_of_its_part(artifact: Artifact) -> None:
    build(artifact)
    whole, part, rest = artifact.digest(), artifact.digest("part/"), artifact.digest("b")
    other = Artifact(artifact.folder, key="k2")
    build(other, "changed")
    assert other.digest() != whole
    assert other.digest("part/") != part
    assert other.digest("b") == rest


@pytest.mark.parametrize(
    ("array", "molecule", "unit", "same"),
    [
        (1.0, "m", "nm", True),
        (2.0, "m", "nm", False),
        (1.0, "n", "nm", False),
        (1, "m", "1", False),
    ],
)
def test_digest_of_a_data_set_is_that_of_its_arrays_and_their_meaning(
    artifact: Artifact, array: float, molecule: str, unit: str, same: bool
) -> None:
    digests = []
    for key, value, of, label in (("k1", 1.0, "m", "nm"), ("k2", array, molecule, unit)):
        other = Artifact(artifact.folder, key)
        other.prepare(artifact.folder.parent / "superseded")
        metadata = DatasetMetadata(of, {"x": label}, {"key": key})
        write_shard(other.folder / "data", 0, {"x": np.array([value])}, metadata)
        ShardedDataset.finish(other.folder / "data", 1, metadata)
        other.finish({})
        digests.append(other.digest("data/"))
    assert (digests[0] == digests[1]) == same


def test_digest_ignores_the_order_of_mappings() -> None:
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
