"""One field in internal coordinates, from torsions turned at random to a row on a new molecule."""

import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.chem.molecule import Molecule
from bnce_dist.cli.train import app
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.pipeline.summary import summary
from bnce_dist.runs.transferable.internal import FILE_NAME

SMOKE = Path(__file__).parents[2] / "jobs" / "configs" / "zero_shot_smoke.yaml"
TAUGHT = ("GG", "AG", "AA")


def run_job(*arguments: str | Path) -> Result:
    command = ["--transferable", "--config", SMOKE, *arguments, "cluster.executor=local"]
    return CliRunner().invoke(app, [str(part) for part in command])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    result = run_job("--output", output, "--name", "done", "--molecules", "GA")
    assert result.exit_code == 0, result.output
    return output / "done"


@pytest.mark.slow
def test_an_unseen_molecule_has_a_row_with_annealed_weights(finished: Path) -> None:
    record = read_json(finished / "fleet.json")
    (metrics,) = record["molecules"].values()
    assert "| GA_zero_shot |" in (finished / "fleet.md").read_text()
    assert metrics["annealing_num_levels"] == 4
    assert metrics["ess_num_samples"] == 200
    assert 0 < metrics["ess_fraction"] <= 1
    assert math.isfinite(metrics["delta_f_kT"])
    assert metrics["log_density_num_samples"] == 20
    assert "unseen_types" not in metrics
    assert (finished / "GA_zero_shot" / "report.html").exists()


@pytest.mark.slow
def test_nobody_simulated_umbrellas_to_teach(finished: Path) -> None:
    for name in TAUGHT:
        stage = finished / "training" / name / "simulate"
        assert {path.name for path in stage.iterdir() if path.is_dir()} == {"dataset"}
        molecule = Molecule.from_sequence(name)
        dataset = ShardedDataset.open(stage / "dataset", molecule=molecule.identity)
        assert dataset.num_samples == 320
        target = Target.from_config(TargetConfig(sequence=name, state_phi_min=0, state_phi_max=3.1))
        positions = torch.from_numpy(dataset.load()["positions_nm"]).double()
        # A quarter of the chains start in the state; glycine, which has no side, may change it.
        assert 0.15 < target.in_state(positions).mean() < 0.6


@pytest.mark.slow
def test_the_field_learned_from_all_of_them_and_samples_molecules(finished: Path) -> None:
    rows = np.load(finished / "field" / "train_emulator" / "z.npy")
    assert set(rows[:, 0]) == {0, 1, 2}
    assert len(rows) > 0.95 * 3 * 320
    max_atoms = Molecule.from_sequence("AA").num_atoms
    stiff = rows[rows[:, 0] == 2, 1 : 1 + 3 * max_atoms]
    # White by type: unit variance on all molecules together, not far from it on one.
    varying = stiff.std(0)[stiff.any(0)]
    assert np.median(varying) == pytest.approx(1, abs=0.25)
    history = read_json(finished / "field" / "train_emulator" / "history.json")
    assert history[-1]["loss"] < 0.999 * history[0]["loss"]

    shared = SharedEmulator.load(finished / "field" / "train_emulator" / FILE_NAME)
    target = Target.from_config(TargetConfig(sequence="GA", temperature_kelvin=310.0))
    emulator, unknown = shared.of_molecule(target)
    assert unknown == ()
    bound = Emulator.load(finished / "GA_zero_shot" / "train_emulator" / "emulator.pt")
    z_prior = emulator.sample_prior(5, generator("prior"))
    torch.testing.assert_close(emulator.transport(z_prior), bound.transport(z_prior))
    # Its exact density is that of the map, by differences along every coordinate.
    emulator, _ = replace(shared, num_ode_steps=2, ode_time_exponent=1.0).of_molecule(target)
    emulator.velocity_field.double()
    z_prior = z_prior[:1].double()
    z, log_density, _ = emulator.transport_with_log_density(z_prior)
    step = 1e-5 * torch.eye(z.shape[1], dtype=torch.float64)
    forward, back = emulator.transport(z_prior + step), emulator.transport(z_prior - step)
    log_det = torch.linalg.slogdet((forward - back) / 2e-5).logabsdet
    expected = emulator.path.log_prior(z_prior) - log_det
    torch.testing.assert_close(log_density, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_saved_generator_of_the_unseen_molecule_samples_again(finished: Path) -> None:
    generator_file = finished / "GA_zero_shot" / "generator.pt"
    ensemble = BoltzmannGenerator.load(generator_file).sample(30, seed=1)
    assert ensemble.positions_nm.shape == (30, Molecule.from_sequence("GA").num_atoms, 3)


@pytest.mark.slow
def test_the_same_command_again_repeats_nothing(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("shard_*.npz")}
    result = run_job("--output", finished.parent, "--name", "done", "--molecules", "GA")
    assert result.exit_code == 0, result.output
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("shard_*.npz")}
    assert "started" not in caplog.text


@pytest.fixture(scope="module")
def asked_of_a_file(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(finished / "field" / "train_emulator" / FILE_NAME, output / "field.pt")
    given = ("transferable.without_simulation=true", f"transferable.field={output / 'field.pt'}")
    result = run_job("--output", output, "--name", "asked", "--molecules", "GA", *given)
    assert result.exit_code == 0, result.output
    return output / "asked"


@pytest.mark.slow
def test_a_field_from_a_file_says_the_same_without_any_simulation(
    finished: Path, asked_of_a_file: Path
) -> None:
    assert not (asked_of_a_file / "training").exists()
    run = asked_of_a_file / "GA_zero_shot"
    assert [path.name for path in (run / "simulate").iterdir()] == ["artifact.json"]
    metrics, compared = (read_json(folder / "GA_zero_shot" / "metrics.json")
                         for folder in (asked_of_a_file, finished))  # fmt: skip
    # What is compared with does not enter the result.
    for name in ("delta_f_kT", "delta_f_interval_kT", "ess_fraction", "pareto_k"):
        assert metrics[name] == compared[name]
    assert metrics["delta_f_reference_kT"] is None
    assert "energy_w2_kT" not in metrics
    assert compared["delta_f_reference_kT"] is not None
    assert metrics["verdict"]["reasons"][-1].startswith("Nothing was simulated to compare with")
    assert not any("Nothing was sim" in text for text in compared["verdict"]["reasons"])


@pytest.mark.slow
def test_what_has_no_reference_has_a_row_figures_and_a_report(asked_of_a_file: Path) -> None:
    row = (asked_of_a_file / "fleet.md").read_text().splitlines()[2].split(" | ")
    assert row[3:5] == ["-", "-"]
    assert row[7:9] == ["-", "-"]
    assert "nothing was simulated to compare with" in (asked_of_a_file / "fleet.md").read_text()
    assert (asked_of_a_file / "fleet.png").exists()
    run = asked_of_a_file / "GA_zero_shot"
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert {"ramachandran", "free_energy_profile", "energies", "torsions"} <= figures
    assert "Reference from</th><td>nowhere" in (run / "report.html").read_text()
    reference = [line for line in summary(read_json(run / "metrics.json"), run).splitlines()
                 if line.startswith("reference")]  # fmt: skip
    assert reference == ["reference            none"]


@pytest.mark.slow
def test_another_file_of_the_same_name_is_asked_anew(asked_of_a_file: Path) -> None:
    path = asked_of_a_file.parent / "field.pt"
    shared = SharedEmulator.load(path)
    replace(shared, num_ode_steps=shared.num_ode_steps + 1).save(path)
    given = ("transferable.without_simulation=true", f"transferable.field={path}")
    result = run_job("--output", path.parent, "--name", "asked", "--molecules", "GA", *given)
    assert result.exit_code == 0, result.output
    bound = Emulator.load(asked_of_a_file / "GA_zero_shot" / "train_emulator" / "emulator.pt")
    assert bound.num_ode_steps == shared.num_ode_steps + 1


@pytest.mark.slow
def test_a_file_is_asked_of_what_it_knows(finished: Path, tmp_path: Path) -> None:
    path = finished / "field" / "train_emulator" / FILE_NAME
    for molecule, message in (
        ("ALA-GLY", "got ALA-GLY, also in transferable.training_molecules"),
        ("AC", "the training molecules (ALA, GLY), got CYS"),
    ):
        given = ("--molecules", molecule, f"transferable.field={path}")
        result = run_job("--output", tmp_path, *given)
        assert result.exit_code == 2
        assert message in result.stderr
    other = finished / "GA_zero_shot" / "generator.pt"
    result = run_job("--output", tmp_path, "--molecules", "GA", f"transferable.field={other}")
    assert "expected schema version 1, kind shared_emulator" in result.stderr
    result = run_job("--output", tmp_path, "--molecules", "GA", "transferable.field=no.pt")
    assert result.exit_code == 2
    assert "no.pt" in result.stderr
    with pytest.raises(InputError, match="ask it of a molecule: bnce train --transferable"):
        BoltzmannGenerator.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--molecules", "GA,ALA-GLY"], "got ALA-GLY, also in transferable.training_molecules"),
        (["--molecules", "AC"], "the training molecules (ALA, GLY), got CYS; add a molecule that"),
        (["--molecules", "DAL-GLY"], "got DAL; add a molecule that has them"),
        (["--molecules", "GA", "energy.architecture=distance"], "set energy.architecture=late_fu"),
        (["--molecules", "GA", "token_field.num_heads=5"], "width a multiple of num_heads"),
        (["--molecules", "GA", "token_field.blocks=all"], "token_field.blocks"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run_job("--output", tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.rglob("artifact.json"))


def test_a_dry_run_names_internal_coordinates(tmp_path: Path) -> None:
    energy = "energy.architecture=tokens"
    result = run_job("--output", tmp_path, "--molecules", "GA", "--dry-run", energy)
    assert result.exit_code == 0, result.output
    assert "20 atoms, model space of 49 euclidean + 5 circular" in result.stdout
