"""One energy model for all molecules of a field in internal coordinates, and its file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.cli.main import app as bnce
from bnce_dist.cli.train import app
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.shared_generator import SharedGenerator
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.transferable.run import with_given_field

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "zero_shot.pt"
SMOKE = Path(__file__).parents[2] / "jobs" / "configs" / "zero_shot_smoke.yaml"
SETTINGS = (
    *("enabled=true", "samples_per_molecule=150", "num_steps=80", "warmup_steps=10", "width=32"),
    *("depth=2", "global_batch_size=64", "num_negatives=16"),
)
SHARED = tuple(f"shared_energy.{setting}" for setting in SETTINGS)
TUNED = tuple(
    f"fine_tuning.{name}" for name in ("num_steps=20", "warmup_steps=2", "global_batch_size=64")
)
SHORT = ("transferable.training_molecules=[GG,AA]", "transferable.num_steps=60")


def run_job(*arguments: str | Path) -> Result:
    command = ["--transferable", "--config", SMOKE, *arguments, "cluster.executor=local"]
    return CliRunner().invoke(app, [str(part) for part in command])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    named = ("--output", output, "--name", "done", "--molecules", "GA")
    without = "transferable.without_simulation=true"
    result = run_job(*named, *SHARED, *TUNED, *SHORT, without)
    assert result.exit_code == 0, result.output
    return output / "done"


@pytest.mark.slow
def test_it_learns_from_samples_of_every_teacher(finished: Path) -> None:
    rows = ShardedDataset.open(finished / "field" / "generate" / "samples").load()["rows"]
    assert [int((rows[:, 0] == place).sum()) for place in (0, 1)] == [150, 150]
    # The padding of the smaller molecule is nothing, and everything else is something.
    num_coordinates = [int(rows[rows[:, 0] == place, 1:].any(0).sum()) for place in (0, 1)]
    assert num_coordinates == [3 * 17 - 6, 3 * 23 - 6]
    history = read_json(finished / "field" / "train_energy" / "history.json")
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.slow
def test_what_is_asked_has_a_row_as_it_is_and_one_fine_tuned(finished: Path) -> None:
    assert list(read_json(finished / "fleet.json")["molecules"]) == [
        "GA_zero_shot",
        "GA_fine_tuned",
    ]
    zero_shot, tuned = (finished / name for name in ("GA_zero_shot", "GA_fine_tuned"))
    assert not (zero_shot / "generate").exists()
    shared = SharedGenerator.load(finished / "field" / "train_energy" / "shared_generator.pt")
    weights = [
        LearnedDensity.load(folder / "train_energy" / "energy.pt").energy_model.state_dict()
        for folder in (zero_shot, tuned)
    ]
    for name, weight in shared.density.energy_model.state_dict().items():
        assert torch.equal(weight, weights[0][name])
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    samples = [
        ShardedDataset.open(folder / "evaluate" / "held_out").load(["z_prior"])["z_prior"]
        for folder in (zero_shot, tuned)
    ]
    assert not np.array_equal(*samples)


@pytest.mark.slow
def test_one_file_is_asked_of_any_molecule(finished: Path, tmp_path: Path) -> None:
    path = shutil.copy(
        finished / "field" / "train_energy" / "shared_generator.pt", tmp_path / "field.pt"
    )
    given = (f"transferable.field={path}", "shared_energy.fine_tunes=false")
    without = "transferable.without_simulation=true"
    named = ("--output", tmp_path, "--name", "asked", "--molecules", "GA")
    result = run_job(*named, *given, without)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "asked" / "GA_fine_tuned").exists()
    metrics, same = (read_json(folder / "GA_zero_shot" / "metrics.json")
                     for folder in (tmp_path / "asked", finished))  # fmt: skip
    for name in ("delta_f_kT", "delta_f_interval_kT", "ess_fraction", "pareto_k"):
        assert metrics[name] == same[name]

    # A run's folder, the file and the command line draw the same samples.
    of_run = BoltzmannGenerator.load(tmp_path / "asked" / "GA_zero_shot").sample(20, seed=3)
    of_file = SharedGenerator.load(path).of_molecule("GA").sample(20, seed=3)
    np.testing.assert_array_equal(of_file.positions_nm, of_run.positions_nm)
    np.testing.assert_allclose(of_file.log_weights, of_run.log_weights, atol=1e-4)
    command = ["sample", "--model", path, "--sequence", "GA", "-n", 20, "--seed", 3]
    written = CliRunner().invoke(bnce, [str(x) for x in (*command, "-o", tmp_path / "s.npz")])
    assert written.exit_code == 0, written.output
    np.testing.assert_allclose(
        np.load(tmp_path / "s.npz")["positions_nm"], of_run.positions_nm, atol=1e-6
    )


@pytest.mark.slow
def test_what_a_file_cannot_be_asked_is_refused(finished: Path) -> None:
    path = finished / "field" / "train_energy" / "shared_generator.pt"
    with pytest.raises(
        InputError, match=r"residues of the training molecules \(ALA, GLY\), got CYS"
    ):
        SharedGenerator.load(path).of_molecule("AC")
    for no_residue in ("AZ", "A G", "A,G"):
        with pytest.raises(InputError, match="expected residues among ALA"):
            SharedGenerator.load(path).of_molecule(no_residue)
    with pytest.raises(InputError, match="sequence: expected a text"):
        SharedGenerator.load(path).of_molecule(["A", "G"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--sequence KS, or SharedGenerator"):
        BoltzmannGenerator.load(path)
    with pytest.raises(InputError, match=r"kind shared_generator, .* got .* kind shared_emul"):
        SharedGenerator.load(finished / "field" / "train_emulator" / "shared_emulator.pt")
    # 300 residues: hundreds of gigabytes, said before a structure is made.
    with pytest.raises(InputError, match=r"1000 samples of 2553 atoms .* ask for a shorter chain"):
        SharedGenerator.load(path).of_molecule(150 * "GA")


@pytest.mark.slow
def test_half_the_bytes_hold_nearly_the_same(finished: Path, tmp_path: Path) -> None:
    path = finished / "field" / "train_energy" / "shared_generator.pt"
    command = ["export", finished, tmp_path / "half.pt", "--half"]
    written = CliRunner().invoke(bnce, [str(part) for part in command])
    assert written.exit_code == 0, written.output
    assert (tmp_path / "half.pt").stat().st_size < 0.8 * path.stat().st_size
    whole, half = (SharedGenerator.load(file).of_molecule("GA").sample(10, seed=1)
                   for file in (path, tmp_path / "half.pt"))  # fmt: skip
    np.testing.assert_allclose(half.positions_nm, whole.positions_nm, atol=0.005)


@pytest.mark.slow
def test_what_is_new_to_it_is_said(finished: Path, tmp_path: Path) -> None:
    shared = SharedGenerator.load(finished)
    assert shared.residues == ["ALA", "GLY"]
    assert shared.of_molecule("ga").metrics == {}
    metrics = shared.of_molecule("GAG").metrics
    command = ["sample", "--model", finished, "--sequence", "GAG", "-n", 10]
    written = CliRunner().invoke(bnce, [str(x) for x in (*command, "-o", tmp_path / "s.npz")])
    assert "note                 The field learned from chains of 2 residues" in written.output
    assert (metrics["num_residues"], metrics["trained_lengths"]) == (3, [2])
    assert any(name.startswith("ALA inner") for name in metrics["unseen_types"])


def test_a_given_density_goes_on_learning_on_its_own_path(tmp_path: Path) -> None:
    given = SharedGenerator.load(COMMITTED)
    assert given.density.interpolant == Config().shared_energy.interpolant
    other = replace(given, density=replace(given.density, interpolant="linear"))
    other.save(tmp_path / "other.pt")
    for path, interpolant in ((COMMITTED, "trigonometric"), (tmp_path / "other.pt", "linear")):
        resolved = with_given_field(load_config(Config, None, [f"transferable.field={path}"]))
        assert resolved.shared_energy.interpolant == interpolant
        assert resolved.shared_energy.enabled
