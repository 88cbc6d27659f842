"""The interface from Python: ten lines from a molecule to a free energy."""

import math
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bnce_dist import Molecule, simulate, train
from bnce_dist.cli.main import app

SMOKE = Path(__file__).parents[1] / "jobs" / "configs" / "smoke.yaml"
LOCAL = {"cluster.executor": "local"}


def test_ten_lines_from_a_molecule_to_a_free_energy(finished_run: Path, tmp_path: Path) -> None:
    """The finished run of the same settings stands for the work, which is not repeated."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.pt")}

    molecule = Molecule.from_sequence("ACE-ALA-NME")
    simulation = simulate(molecule, folder, config=SMOKE, settings=LOCAL)
    generator = train(simulation)
    ensemble = generator.sample(1000, progress=False)
    estimate = ensemble.delta_f()

    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*.pt")} == before
    assert simulation.reference["stderr_kT"] > 0
    assert generator.molecule == molecule
    assert math.isfinite(estimate.value_kT)
    assert estimate.interval_kT[0] < estimate.value_kT < estimate.interval_kT[1]
    assert ensemble.save(tmp_path / "samples.npz") == [tmp_path / "samples.npz"]


def test_the_command_simulates_what_the_function_does(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "simulate", tmp_path / "runs" / "mine" / "simulate")
    command = ["simulate", "--config", str(SMOKE), "--output", str(tmp_path / "runs")]
    command += ["--name", "mine", "cluster.executor=local"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "simulate: finished before" in done.stderr
    assert not (tmp_path / "runs" / "mine" / "train_emulator").exists()


def test_unknown_names_are_unknown() -> None:
    with pytest.raises(ImportError):
        from bnce_dist import simulates  # noqa: F401
