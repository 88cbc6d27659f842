"""The whole job, small: real simulation, training, sampling and reweighting in one process."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.divergence import log_density_along_ode
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.pipeline.stages.evaluate import ExactLikelihood
from bnce_dist.runs.report import write_report

Job = Callable[..., Result]
PROMISED = {
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_reference_kT",
    "delta_f_reference_stderr_kT",
    "delta_f_reference_run_kT",
    "delta_f_reference_run_stderr_kT",
    "delta_f_exact_kT",
    "ess_fraction",
    "ess_fraction_clipped",
    "ess_num_samples",
    "pareto_k",
    "log_density_rmse_kT",
    "speedup_over_exact",
    "seconds",
    "seed",
    "commit",
    "versions",
}


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "done"))


def test_a_run_ends_with_a_report_that_can_be_written_again(run_copy: Path) -> None:
    text = (run_copy / "report.html").read_text()
    metrics = read_json(run_copy / "metrics.json")
    assert f"{metrics['delta_f_kT']:.2f} ± {metrics['delta_f_stderr_kT']:.2f} kT" in text
    assert metrics["hardware"] in text
    (run_copy / "report.html").unlink()
    assert write_report(run_copy).read_text() == text
    with pytest.raises(InputError, match=r"metrics\.json"):
        write_report(run_copy / "evaluate")


def modification_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_metrics_hold_what_is_promised(finished_run: Path) -> None:
    metrics = read_json(finished_run / "metrics.json")
    assert metrics.keys() >= PROMISED
    numbers = [value for value in metrics.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in numbers)
    assert metrics["ess_num_samples"] == 1000
    assert metrics["speedup_over_exact"] > 10
    assert set(metrics["seconds"]) == {
        "simulate",
        "train_emulator",
        "generate",
        "train_energy",
        "evaluate",
    }


def test_figures_and_journal_are_there(finished_run: Path) -> None:
    assert len(list((finished_run / "figures").glob("*.png"))) >= 5
    assert (finished_run / "tracking.jsonl").stat().st_size > 0


def test_the_same_command_again_computes_nothing(run_job: Job, run_copy: Path) -> None:
    stages = [path.parent for path in run_copy.glob("*/artifact.json")]
    before = [modification_times(stage) for stage in stages]
    result = run_job("--output", run_copy.parent, "--name", "done", "--json", "--strict")
    metrics = json.loads(result.stdout)
    assert result.exit_code == (0 if metrics["verdict"]["reliable"] else 3), result.output
    assert metrics["delta_f_kT"] == read_json(run_copy / "metrics.json")["delta_f_kT"]
    assert [modification_times(stage) for stage in stages] == before


def test_a_changed_configuration_needs_resume_and_redoes_what_it_affects(
    run_job: Job, run_copy: Path
) -> None:
    command = ("--output", run_copy.parent, "--name", "done", "evaluate.num_exact=40")
    refused = run_job(*command)
    assert refused.exit_code == 2
    assert "evaluate.num_exact=60" in refused.stderr
    training = modification_times(run_copy / "train_energy")
    accepted = run_job(*command, "--resume")
    assert accepted.exit_code == 0, accepted.output
    assert modification_times(run_copy / "train_energy") == training
    metrics = read_json(run_copy / "metrics.json")
    assert metrics["log_density_num_samples"] == 40
    assert (run_copy / "superseded" / "evaluate-1" / "artifact.json").exists()


def test_an_interrupted_training_with_a_torn_checkpoint_is_one_line(
    run_job: Job, run_copy: Path
) -> None:
    stage = run_copy / "train_energy"
    record = read_json(stage / "artifact.json")
    (stage / "artifact.json").write_text(json.dumps({k: record[k] for k in record if k != "files"}))
    checkpoint = stage / "training" / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    earlier = modification_times(run_copy / "generate")
    command = ("--output", run_copy.parent, "--name", "done")

    refused = run_job(*command)
    assert refused.exit_code == 2
    assert "checkpoint.pt" in refused.stderr.splitlines()[-1]
    assert modification_times(run_copy / "generate") == earlier

    checkpoint.unlink()
    assert run_job(*command).exit_code == 0


def test_an_interrupted_run_continues_where_it_stopped(
    run_job: Job, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: ExactLikelihood, index: int) -> None:
        raise KeyboardInterrupt

    command = ("--output", run_copy.parent, "--name", "done", "--resume", "evaluate.num_exact=40")
    with monkeypatch.context() as patch:
        patch.setattr(ExactLikelihood, "__call__", interrupt)
        stopped = run_job(*command)
    assert stopped.exit_code == 130
    assert "the same command continues" in stopped.stderr.splitlines()[-1]
    evaluated = modification_times(run_copy / "evaluate" / "evaluated")
    shards = {path: time for path, time in evaluated.items() if path.suffix == ".npz"}
    assert shards
    assert run_job(*command).exit_code == 0
    assert shards.items() <= modification_times(run_copy / "evaluate" / "evaluated").items()


def test_emulator_samples_the_molecule(finished_run: Path) -> None:
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    emulator = Emulator.load(
        finished_run / "train_emulator" / "emulator.pt", molecule_identity=molecule.identity
    )
    positions = emulator.sample(200, generator(1))
    assert positions.shape == (200, molecule.num_atoms, 3)
    (centre,) = molecule.chirality_centres
    assert (signed_volume(positions, centre) > 0).double().mean() > 0.95


def test_exact_log_density_agrees_with_the_continuous_flow(finished_run: Path) -> None:
    emulator = Emulator.load(finished_run / "train_emulator" / "emulator.pt")
    z_prior = emulator.path.sample_prior(20, generator(2))
    z, discrete, inverted = emulator.transport_with_log_density(z_prior)
    torch.testing.assert_close(z, emulator.transport(z_prior), rtol=1e-4, atol=1e-4)
    assert not inverted.any()
    continuous = log_density_along_ode(emulator.velocity_field, emulator.path, z, 48)
    assert (discrete - continuous).abs().median() < 0.5


def test_learned_density_of_positions_is_that_of_the_evaluation(finished_run: Path) -> None:
    density = LearnedDensity.load(finished_run / "train_energy" / "energy.pt")
    evaluated = ShardedDataset.open(finished_run / "evaluate" / "evaluated").load()
    usable = evaluated["valid"] & evaluated["native_chirality"]
    positions = torch.from_numpy(evaluated["positions_nm"][usable][:100])
    expected = torch.from_numpy(evaluated["log_density"][usable][:100])
    # The stored positions are float32, which the stiffest coordinates feel.
    torch.testing.assert_close(density.log_density(positions), expected, rtol=0, atol=0.05)


def test_a_model_file_of_something_else_is_refused(finished_run: Path, tmp_path: Path) -> None:
    path = finished_run / "train_emulator" / "emulator.pt"
    with pytest.raises(InputError, match="kind energy"):
        LearnedDensity.load(path)
    with pytest.raises(InputError, match="molecule 123"):
        Emulator.load(path, molecule_identity="123")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="a complete emulator file"):
        Emulator.load(torn)


@pytest.mark.slow
def test_a_run_is_asked_for_other_temperatures_afterwards(run_copy: Path, run_job: Job) -> None:
    # More levels than the other tests take: at few the small models reach nothing.
    asked = ("evaluate.temperatures_kelvin=[290,300,2000]", "evaluate.annealing.num_levels=20")
    result = run_job("--output", run_copy.parent, "--name", run_copy.name, *asked, "--resume")
    assert result.exit_code == 0, result.output
    metrics = read_json(run_copy / "metrics.json")
    own, near, far = (
        next(row for row in metrics["temperatures"] if row["temperature_kelvin"] == temperature)
        for temperature in (300.0, 290.0, 2000.0)
    )
    assert own["delta_f_kT"] == metrics["delta_f_kT"]
    assert not (run_copy / "evaluate" / "annealed_300K").exists()  # it is the run's own
    assert near["delta_f_kj_mol"] == pytest.approx(own["delta_f_kj_mol"], abs=3.0)
    assert near["ess_fraction"] > far["ess_fraction"]
    assert not far["reliable"]
    assert "delta_f at 290 K" in result.output
    assert (run_copy / "figures" / "temperatures.png").exists()


def test_frames_of_the_simulation_get_the_density_that_samples_get(finished_run: Path) -> None:
    emulator = Emulator.load(finished_run / "train_emulator" / "emulator.pt")
    z, log_density, inverted = emulator.transport_with_log_density(
        emulator.path.sample_prior(50, generator("noise"))
    )
    again, found = emulator.log_density_z(z)
    both = found & ~inverted
    assert both.double().mean() > 0.8
    error = (again - log_density)[both].abs()
    assert error.median() < 0.01
    assert (error < 0.1).double().mean() > 0.9

    frames = ShardedDataset.open(finished_run / "evaluate" / "exact_frames").load()
    assert len(frames["row"]) == 40
    assert frames["in_state"].sum() == 20
    metrics = read_json(finished_run / "metrics.json")
    assert 0.5 < metrics["frames_found"] <= 1.0
