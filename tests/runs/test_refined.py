"""A run that goes on from a finished one: what it takes over, learns on, and refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.state import State
from bnce_dist.cli.train import app
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.pipeline.artifact import Artifact
from bnce_dist.pipeline.stages.dataset import annealed_starts

Job = Callable[..., Result]


def refine(run: Path, *arguments: object) -> Result:
    """Refine a run beside it, as ``bnce train --refine`` does."""
    command = ["--refine", run, "--output", run.parent, *arguments]
    return CliRunner().invoke(app, [str(part) for part in command])


@pytest.fixture(scope="module")
def before(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("runs") / "done"))


@pytest.fixture(scope="module")
def refined(before: Path) -> Path:
    result = refine(before)
    assert result.exit_code == 0, result.output
    return before.with_name("done_refined")


def test_it_is_judged_by_the_reference_of_the_run_before(before: Path, refined: Path) -> None:
    old, new = (read_json(run / "metrics.json") for run in (before, refined))
    assert new["delta_f_reference_run_kT"] == old["delta_f_reference_run_kT"]
    assert new["energy_w2_baseline_kT"] == old["energy_w2_baseline_kT"]
    assert new["delta_f_kT"] != old["delta_f_kT"]
    assert new["seed"] == old["seed"] + 1


def test_its_chains_start_in_annealed_samples(before: Path, tmp_path: Path) -> None:
    """Where all samples are two conformations, a quarter of a picosecond leads to few others."""
    run = Path(shutil.copytree(before, tmp_path / "two"))
    annealed = ShardedDataset.open(run / "evaluate" / "annealed")
    arrays, metadata = annealed.load(), annealed.metadata
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    inside = State.from_interval(0.0, 2.0).contains(arrays["phi"], arrays["psi"])
    sides = [
        np.flatnonzero(side & np.isfinite(arrays["log_weights"])) for side in (inside, ~inside)
    ]
    two = np.array([rows[arrays["log_weights"][rows].argmax()] for rows in sides])
    shutil.rmtree(annealed.folder)
    write_shard(annealed.folder, 0, {name: array[two] for name, array in arrays.items()}, metadata)
    ShardedDataset.finish(annealed.folder, 1, metadata)
    evaluated = Artifact.finished(run / "evaluate")
    evaluated.finish(evaluated.provenance)

    result = refine(run, "--stage", "train_emulator", "emulator.num_steps=101")
    assert result.exit_code == 0, result.output
    starts = np.stack([arrays["phi"][two], arrays["psi"][two]], axis=1)

    def distance(folder: Path) -> float:
        """Return how far first frames are from the nearer of the two, typically [rad]."""
        shards = ShardedDataset.open(folder / "dataset")
        first = torch.from_numpy(np.concatenate([shard["positions_nm"][:64] for shard in shards]))
        assert len(first) == 128
        torsions = torch.stack([dihedral(first, t) for t in (molecule.phi, molecule.psi)], dim=1)
        apart = torsions.numpy()[:, None] - starts[None]
        return float(
            np.median(np.abs((apart + np.pi) % (2 * np.pi) - np.pi).max(axis=2).min(axis=1))
        )

    # Those that start in the umbrella simulation are all over the plane.
    refined_run = run.with_name("two_refined")
    assert distance(refined_run / "train_emulator") < 0.6 * distance(run / "simulate")


def test_energies_are_compared_with_chains_of_the_run_before(before: Path, refined: Path) -> None:
    own = ShardedDataset.open(refined / "simulate" / "dataset").load(["positions_nm"])
    old = ShardedDataset.open(before / "simulate" / "dataset").load(["positions_nm"])
    new = ShardedDataset.open(refined / "train_emulator" / "dataset").load(["positions_nm"])
    np.testing.assert_array_equal(own["positions_nm"], old["positions_nm"])
    assert (new["positions_nm"] != old["positions_nm"]).any(axis=(1, 2)).all()


def test_its_models_learn_on(before: Path, refined: Path) -> None:
    """A model that has learned begins with a lower loss than one that has not."""
    for stage, model in (("train_emulator", Emulator), ("train_energy", LearnedDensity)):
        old, new = (read_json(run / stage / "history.json") for run in (before, refined))
        assert new[0]["loss"] < old[0]["loss"]
        name = "emulator.pt" if model is Emulator else "energy.pt"
        one, other = (model.load(run / stage / name) for run in (before, refined))
        for key, value in one.coordinates.to_state().items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other.coordinates.to_state()[key])
        weights = zip(one.model.parameters(), other.model.parameters(), strict=True)
        assert not all(torch.equal(mine, its) for mine, its in weights)


def test_the_same_command_again_computes_nothing(refined: Path) -> None:
    written = {path: path.stat().st_mtime_ns for path in refined.glob("*/artifact.json")}
    assert len(written) == 5
    result = refine(refined.with_name("done"), "--json")
    assert result.exit_code == 0, result.output
    metrics = read_json(refined / "metrics.json")
    assert json.loads(result.stdout)["delta_f_kT"] == metrics["delta_f_kT"]
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_refined_run_can_be_refined(refined: Path) -> None:
    result = refine(refined, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "seed: 2\n" in result.stdout
    assert f"refines: {refined}\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("target.temperature_kelvin=310.0",), "target.temperature_kelvin=310.0 instead of 300.0"),
        (("reference.production_ps=2.0",), "reference.production_ps=2.0 instead of 1.0"),
        (("seed=0",), "set seed=1"),
        (("dataset.num_chains=64",), "dataset.num_chains=64"),
        (("dataset.num_tasks=128",), "lower dataset.num_tasks"),
        (("emulator.width=32",), "leave out what section emulator says"),
        (("energy.interpolant=linear",), "leave out what section energy says"),
        (("--name", "done"), "choose another --name"),
        (("--config", "jobs/configs/smoke.yaml"), "leave --config out"),
        (("--molecules", "AC,ET"), "leave --molecules out"),
        (("refines=elsewhere",), "leave refines out"),
        (("--transferable",), "leave --transferable out"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_cannot_be_refined_is_one_clear_line(
    before: Path, tmp_path: Path, arguments: tuple[str, ...], said: str, dry_run: bool
) -> None:
    folder = before.parent if "--name" in arguments else tmp_path
    options = ["--output", folder, *(["--dry-run"] if dry_run else [])]
    result = refine(before, *options, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_without_a_finished_run_is_refused(before: Path, tmp_path: Path) -> None:
    result = refine(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "no config.yaml in it" in result.stderr
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(before / "config.yaml", unfinished)
    result = refine(unfinished)
    assert result.exit_code == 2
    assert "finish the run first" in result.stderr


def test_samples_that_were_not_annealed_are_refused(before: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(before, tmp_path / "drawn"))
    shutil.rmtree(run / "evaluate" / "annealed")
    result = refine(run)
    assert result.exit_code == 2
    assert "evaluate.annealing" in result.stderr


def test_samples_without_any_weight_are_refused(before: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(before, tmp_path / "weightless"))
    metrics = read_json(run / "metrics.json")
    (run / "metrics.json").write_text(json.dumps(metrics | {"delta_f_kT": None}))
    result = refine(run, "--dry-run")
    assert result.exit_code == 2
    assert "expected samples with a weight" in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "simulate/umbrella/shard_00000.npz",
        "simulate/artifact.json",
        "evaluate/annealed/shard_00000.npz",
        "train_energy/energy.pt",
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_run_is_refused_before_any_work(
    before: Path, tmp_path: Path, name: str, is_there: bool
) -> None:
    run = Path(shutil.copytree(before, tmp_path / "damaged"))
    if is_there:
        (run / name).write_bytes((run / name).read_bytes()[:40])
    else:
        (run / name).unlink()
    result = refine(run)
    assert result.exit_code == 2
    assert str((run / name).parent) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (run.with_name("damaged_refined") / "simulate").exists()


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("target.temperature_kelvin", "temperature_kelvin: 300.0", "temperature_kelvin: 310.0"),
        ("reference.production_ps", "production_ps: 1.0", "production_ps: 2.0"),
    ],
)
def test_a_run_whose_configuration_was_edited_since_is_refused(
    before: Path, tmp_path: Path, setting: str, old: str, new: str
) -> None:
    run = Path(shutil.copytree(before, tmp_path / "edited"))
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))
    result = refine(run, "--dry-run")
    assert result.exit_code == 2
    assert f"{setting} in {run}/config.yaml: expected {old.split()[1]}" in result.stderr


def test_a_run_is_not_written_over_by_one_that_goes_on_from_it(before: Path, refined: Path) -> None:
    result = refine(refined, "--name", before.name, "--resume", "--dry-run")
    assert result.exit_code == 2
    assert f"got one that goes on from {before}; choose another --name" in result.stderr


@pytest.mark.parametrize("spelling", ["{name}", "../{folder}/{name}", "link"])
def test_a_run_is_the_same_however_its_place_is_spelled(
    before: Path, run_job: Job, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(before.parent)
    if spelling == "link" and not Path("link").exists():
        Path("link").symlink_to(before)
    place = spelling.format(name=before.name, folder=before.parent.name)
    config = ("--config", before / "config.yaml", "seed=1", f"refines={place}", "--dry-run")
    for result in (refine(Path(place), "--dry-run"), run_job("--output", before.parent, *config)):
        assert result.exit_code == 0, result.output
        assert f"refines: {before}\n" in result.stdout


def test_one_field_for_many_molecules_refines_nothing(run_job: Job, before: Path) -> None:
    settings = ("--transferable", "--molecules", "AC", f"refines={before}")
    result = run_job("--output", before.parent, "--name", "shared", *settings)
    assert result.exit_code == 2
    assert "--transferable" in result.stderr


def test_the_heaviest_samples_of_each_side_start_no_more_than_a_few_chains(tmp_path: Path) -> None:
    """A sample that weighs as much as the 500 others of its side is lowered to the next."""
    log_weights = np.zeros(1000)
    log_weights[[7, 600]] = np.log(1000.0), np.log(500.0)
    log_weights[8] = -np.inf
    # The rarer side weighs less altogether than the other's outlier.
    log_weights[500:] -= 7.0
    positions = np.random.default_rng(0).normal(size=(1000, 3, 3)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {
        "positions_nm": positions,
        "log_weights": log_weights,
        "phi": np.repeat([-1.5, 1.0], 500),
        "psi": np.zeros(1000),
    }
    metadata = DatasetMetadata("any", dict.fromkeys(arrays, "1"), {})
    write_shard(tmp_path / "annealed", 0, arrays, metadata)
    ShardedDataset.finish(tmp_path / "annealed", 1, metadata)
    target = SimpleNamespace(state=State.from_interval(0.0, 2.0))
    starts, weights = annealed_starts(tmp_path / "annealed", target, None, 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(starts, positions)
    assert (weights[7], weights[8], weights[600]) == (0.0, -np.inf, -7.0)
