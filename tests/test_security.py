"""Files from strangers: what is in them is read, and nothing in them runs."""

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import build_system
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import file_sha256, read_json, write_json
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.data.torch_file import write_torch
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.nn.pretrained import load_pretrained
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.stages.reference import Reference
from bnce_dist.runs.pretrained.comparison import load_energies, load_umbrella
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingTask

PACKAGE = Path(__file__).parents[1] / "bnce_dist"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def with_digest(path: Path, payload: Payload) -> None:
    write_torch(path, {"schema_version": 1, "kind": "generator", "molecule": payload})


def archive(path: Path, payload: Payload) -> None:
    torch.save({"schema_version": 1, "metadata": payload}, path)


def legacy(path: Path, payload: Payload) -> None:
    torch.save({"weight": payload}, path, _use_new_zipfile_serialization=False)


def bare(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps(payload))


def objects(path: Path, payload: Payload) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([payload], dtype=object))


def archive_of_objects(path: Path, payload: Payload) -> None:
    array = np.array([payload], dtype=object)
    with path.open("wb") as stream:
        np.savez(stream, xs=array, f_i_mean=array, f_i_std=array, phi=array)


def open_training_data(path: Path) -> np.ndarray:
    metadata = TrainingMetadata("energy", "molecule")
    return TrainingTask(torch.nn.Identity, path, TrainSettings(num_steps=500), metadata).open_data()


WRITERS = (with_digest, archive, legacy, bare, objects, archive_of_objects)
READERS = (
    BoltzmannGenerator.load,
    load_checkpoint,
    load_pretrained,
    load_energies,
    load_umbrella,
    open_training_data,
)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("read", READERS)
def test_no_pickle_runs(
    tmp_path: Path, write: Callable[[Path, Payload], None], read: Callable[[Path], Any]
) -> None:
    write(tmp_path / "file", Payload(tmp_path / "proof"))
    with pytest.raises(InputError) as refused:
        read(tmp_path / "file")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "proof").exists()


def test_no_pickle_runs_in_a_shard_or_a_reference(tmp_path: Path) -> None:
    metadata = DatasetMetadata("molecule", {"phi": "rad"})
    write_shard(tmp_path, 0, {"phi": np.zeros(3)}, metadata)
    ShardedDataset.finish(tmp_path, 1, metadata)
    shard = tmp_path / "shard_00000.npz"
    archive_of_objects(shard, Payload(tmp_path / "proof"))
    manifest = read_json(tmp_path / "manifest.json")
    manifest["shards"][0]["sha256"] = file_sha256(shard)  # By somebody who means it.
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(InputError, match="shard_00000"):
        ShardedDataset.open(tmp_path).load()
    (tmp_path / "reference").mkdir()
    shard.rename(tmp_path / "reference" / "frames.npz")
    with pytest.raises(InputError, match=r"frames\.npz"):
        Reference.load(tmp_path)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("tag", ["Script", "InitializationScript"])
@pytest.mark.parametrize("is_included", [False, True])
def test_no_script_of_a_force_field_runs(tmp_path: Path, tag: str, is_included: bool) -> None:
    """OpenMM runs them as Python; a model file or a configuration can name such a file."""
    file = tmp_path / "own.xml"
    script = f"<{tag}>import os; os.mkdir({str(tmp_path / 'proof')!r})</{tag}>"
    file.write_text(f"<ForceField>{script}</ForceField>")
    if is_included:
        file = tmp_path / "outer.xml"
        file.write_text('<ForceField><Include file="own.xml"/></ForceField>')
    files = ("amber14-all.xml", "implicit/obc1.xml", str(file))
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    with pytest.raises(InputError, match=f"<{tag}>, which would run as Python"):
        build_system(molecule, files)
    assert not (tmp_path / "proof").exists()
    file.write_text("<ForceField><")
    with pytest.raises(InputError, match="force_field: expected OpenMM files"):
        build_system(molecule, files)


def test_no_yaml_runs(tmp_path: Path) -> None:
    text = f"!!python/object/apply:os.mkdir ['{tmp_path / 'proof'}']"
    (tmp_path / "config.yaml").write_text(f"seed: {text}\n")
    with pytest.raises(InputError):
        load_config(Config, tmp_path / "config.yaml")
    with pytest.raises(InputError):
        load_config(Config, None, [f"seed={text}"])
    assert not (tmp_path / "proof").exists()


def test_the_package_calls_nothing_that_runs_what_it_reads() -> None:
    """Where a new reader is added, it cannot bring one of these."""
    forbidden = {"eval", "exec", "pickle.Unpickler"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            where = f"{path.name}:{node.lineno}"
            assert name not in forbidden, where
            assert name not in ("pickle.load", "pickle.loads", "joblib.load"), where
            assert keywords.get("allow_pickle", "False") == "False", where
            assert keywords.get("shell", "False") == "False", where
            if name == "torch.load":
                assert keywords["weights_only"] == "True", where
            if name == "yaml.load":
                assert keywords["Loader"] in ("_Loader", "yaml.SafeLoader"), where
