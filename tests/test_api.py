"""The interface from Python: ten lines from a molecule to a free energy."""

import inspect
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bnce_dist
from bnce_dist import Molecule, learn_planar, simulate, train, train_fleet
from bnce_dist.cli.main import app
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json

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


def test_a_molecule_that_its_name_does_not_say_all_about_is_refused(tmp_path: Path) -> None:
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    others = (
        replace(molecule, positions_nm=molecule.positions_nm * 1.1),
        replace(molecule, torsions=(molecule.psi, molecule.phi)),
        replace(molecule, name="butane"),
    )
    for other in others:
        with pytest.raises(InputError, match=r"target\.torsions, or target\.sequence=None with"):
            simulate(other, tmp_path / "run", config=SMOKE, settings=LOCAL)
    assert not list(tmp_path.iterdir())


def test_settings_name_the_file_of_a_molecule(tmp_path: Path) -> None:
    settings = {"target.sequence": None, "target.pdb": str(tmp_path / "cis.pdb"), **LOCAL}
    with pytest.raises(InputError, match=r"cis\.pdb"):
        simulate("ACE-ALA-NME", tmp_path / "run", config=SMOKE, settings=settings)


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


def test_every_kind_of_run_is_a_function_with_a_docstring() -> None:
    names = ("simulate", "train", "train_fleet", "train_transferable", "sweep", "learn_planar")
    for name in (*names, "evaluate_pretrained"):
        function = getattr(bnce_dist, name)
        assert name in bnce_dist.__all__
        for part in ("Args:", "Raises: InputError"):
            assert part in inspect.getdoc(function), name


def test_a_planar_run_from_python(tmp_path: Path) -> None:
    settings = {"energy.num_steps": 40, "energy.warmup_steps": 10, "data.num_samples": 2000}
    metrics = learn_planar(tmp_path / "run", settings={"system": "rings", **settings})
    assert metrics["system"] == "rings"
    assert read_json(tmp_path / "run" / "metrics.json") == metrics
    with pytest.raises(InputError, match="nearest is checkerboard"):
        learn_planar(tmp_path / "other", settings={"system": "chekerboard"})


def test_a_fleet_of_unusable_molecules_computes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different sequences"):
        train_fleet(["AC", "AC"], tmp_path)
    assert not list(tmp_path.iterdir())
