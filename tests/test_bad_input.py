"""What a user can get wrong: one clear line, a non-zero exit code, and nothing damaged."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from openmm.app import PDBFile
from openmm.unit import nanometer
from typer.testing import CliRunner, Result

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.cli.train import app
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.distributed.launch import executor_for
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.molecule import prepare

ROOT = Path(__file__).parents[1]
METADATA = DatasetMetadata("molecule-a", {"z": "1"})


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


@pytest.fixture(autouse=True)
def nothing_finished_is_touched(tmp_path: Path) -> Iterator[None]:
    """Put a finished stage into the run folder and check it after every test."""
    artifact = Artifact(tmp_path / "runs" / "mine" / "generate", key="some other run")
    artifact.prepare(tmp_path / "superseded")
    (artifact.folder / "samples.txt").write_text("precious")
    artifact.finish({})
    yield
    assert artifact.is_finished()


def train(tmp_path: Path, *arguments: str | Path) -> Result:
    command = ["--output", tmp_path / "runs", "--name", "mine", "tracking.backend=none"]
    command += ["cluster.executor=local", *arguments]
    return CliRunner().invoke(app, [os.fspath(part) for part in command])


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "expected" in line
    assert "got" in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("target.sequence=ACE-XYZ-NME", ["XYZ"]),
        ("target.sequence=AJ", ["J"]),
        ("target.force_field=[amber99.xml]", ["amber99.xml"]),
        ("energy.num_negativs=64", ["energy.num_negatives"]),
        ("target.temperature_kelvin=-300", ["target.temperature_kelvin", "-300"]),
        ("cluster.num_workers=0", ["cluster.num_workers"]),
        ("cluster.strategy=fsdp", ["cluster.strategy", "sharded"]),
        ("cluster.zero_stage=4", ["cluster.zero_stage", "3"]),
        ("energy.global_batch_size=large", ["energy.global_batch_size", "integer"]),
        ("target.pdb=absent.pdb", ["absent.pdb"]),
        ("target.pdb=absent.cif", ["absent.cif", "a readable mmCIF file"]),
        ("num_workers", ["key=value"]),
    ],
)
def test_settings(tmp_path: Path, argument: str, parts: list[str]) -> None:
    assert_refused(train(tmp_path, argument), *parts)


def test_a_batch_that_does_not_divide_is_seen_before_anything_runs(tmp_path: Path) -> None:
    result = train(tmp_path, "cluster.num_workers=7")
    assert_refused(result, "global_batch_size", "7")


def test_parts_of_a_batch_that_do_not_divide(tmp_path: Path) -> None:
    result = train(tmp_path, "cluster.num_workers=2", "cluster.accumulation_steps=3")
    assert_refused(result, "workers (2)", "accumulation_steps (3)")


def test_a_strategy_that_cannot_train_a_later_stage(tmp_path: Path) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed (make setup-deepspeed)")
    zero3 = ("cluster.executor=ray", "cluster.strategy=deepspeed", "cluster.zero_stage=3")
    assert_refused(train(tmp_path, *zero3), "zero_stage", "EnergyMatching", "got 3", "sharded")


def test_activation_checkpointing_where_there_is_nothing_to_forget(tmp_path: Path) -> None:
    result = train(tmp_path, "cluster.activation_checkpointing=true")
    assert_refused(result, "internal coordinates", "expected false", "cluster.accumulation_steps")


def test_a_strategy_of_many_workers_without_ray(tmp_path: Path) -> None:
    result = train(tmp_path, "cluster.executor=local", "cluster.strategy=sharded")
    assert_refused(result, "executor ray", "executor = local", "strategy = sharded")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--stage", "trian_energy"], "train_energy"),
        (["--name", "a/b"], "--output"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_options(tmp_path: Path, arguments: list[str], part: str) -> None:
    assert_refused(train(tmp_path, *arguments), part)


def test_a_pdb_with_missing_atoms(tmp_path: Path, molecule: Molecule) -> None:
    path = tmp_path / "broken.pdb"
    with path.open("w") as stream:
        PDBFile.writeFile(molecule.topology, molecule.positions_nm * nanometer, stream)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if " CB " not in line))
    assert_refused(train(tmp_path, f"target.pdb={path}"), "CB")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("ALA", "XAL", ["'XAL'", "residues among"]),
        ("NME", "HEM", ["'HEM'", "did you mean"]),
    ],
)
def test_a_pdb_of_something_else(
    tmp_path: Path, molecule: Molecule, old: str, new: str, parts: list[str]
) -> None:
    path = tmp_path / "other.pdb"
    with path.open("w") as stream:
        PDBFile.writeFile(molecule.topology, molecule.positions_nm * nanometer, stream)
    path.write_text(path.read_text().replace(old, new))
    assert_refused(train(tmp_path, f"target.pdb={path}"), *parts)


def test_an_unwritable_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = train(tmp_path, "--output", tmp_path / "file")
    assert_refused(result, "cannot write")


def test_a_full_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert_refused(train(tmp_path), "MB of free space", "1 MB")


def test_a_folder_that_holds_another_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("seed: 3\n")
    assert_refused(train(tmp_path), "seed=3", "--resume")


def test_a_tracker_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert_refused(train(tmp_path, "tracking.backend=mlflow"), "127.0.0.1:9")


def test_the_job_prints_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "jobs/train.py", "--output", tmp_path / "runs", "seed=x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: configuration key seed: expected a valid integer, got")
    assert len(done.stderr.splitlines()) == 1


def test_a_dry_run_starts_and_writes_nothing(tmp_path: Path) -> None:
    result = train(tmp_path, "--dry-run", "--name", "new", "seed=7")
    assert result.exit_code == 0, result.output
    assert "seed: 7" in result.stdout
    for part in ("parameters", "samples per step", "storage", "upload"):
        assert part in result.stdout
    assert not (tmp_path / "runs" / "new").exists()


def test_a_torsion_that_models_take_as_stiff_is_refused_before_it_is_simulated(
    tmp_path: Path,
) -> None:
    arguments = ("--dry-run", "--name", "new", "target.torsions=[phi,omega]")
    refused = train(tmp_path, *arguments)
    assert refused.exit_code == 2
    assert "got CH3-C-N-CA; name another one" in refused.stderr
    # What the line advises.
    assert train(tmp_path, *arguments, "--stage", "simulate").exit_code == 0
    settings = ["target.torsions=[phi,omega]", "cluster.executor=local"]
    run = prepare(load_config(Config, None, settings), RunFolder(tmp_path / "new"))
    with pytest.raises(InputError, match="got CH3-C-N-CA"):
        executor_for(run)
    executor_for(run, "simulate")


def test_not_a_number_in_positions(molecule: Molecule) -> None:
    positions = torch.tensor(molecule.positions_nm)[None].repeat(100, 1, 1)
    positions[3, 5, 1] = torch.nan
    force_field = ForceField.from_system(build_system(molecule), temperature_kelvin=300.0)
    with pytest.raises(InputError, match="finite"):
        force_field.reduced_potential(positions)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    with pytest.raises(InputError, match="finite"):
        WhitenedInternal.fit(zmatrix, positions)


@pytest.fixture
def dataset(tmp_path: Path) -> ShardedDataset:
    for index in range(2):
        write_shard(tmp_path / "data", index, {"z": np.zeros((50, 3), np.float32)}, METADATA)
    return ShardedDataset.finish(tmp_path / "data", 2, METADATA)


def test_a_data_set_of_another_molecule(dataset: ShardedDataset) -> None:
    with pytest.raises(InputError, match="molecule-b"):
        ShardedDataset.open(dataset.folder, molecule="molecule-b")


def test_a_truncated_shard(dataset: ShardedDataset) -> None:
    path = dataset.folder / dataset.shards[1].file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=path.name):
        dataset.load(["z"])
    assert dataset.read(0)["z"].shape == (50, 3)
