"""Samples of the shipped model: as files that other programs read, and as an estimate."""

import json
import os
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import build_system
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.cli.main import app
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.shipped import FOLDER, load_shipped

NUM_SAMPLES = 40
SHIPPED = FOLDER / "ace-ala-nme.pt"


def bnce(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(
        app, [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments]
    )


def sample(output: Path, *arguments: str) -> Result:
    shipped = ["--sequence", "ACE-ALA-NME", "-n", NUM_SAMPLES, "-o", output]
    return bnce("sample", *shipped, *arguments)


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    for part in ("error: ", *parts):
        assert part in line


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "--sequence", "ACE-ALA-NME", "-o", "s.npz"),
        ("evaluate", "--sequence", "ACE-ALA-NME"),
        ("sample-pretrained", "unweighted_ot_ema.pt", "-o", "s.npz"),
        ("serve", "models:/nobody/1"),
    ],
    ids=lambda command: command[0],
)
def test_a_device_that_is_not_there_is_one_line(command: tuple[str, ...]) -> None:
    assert_refused(bnce(*command, "--device", "tpu9"), "device: expected cpu, or a GPU", "tpu9")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray]:
    path = tmp_path_factory.mktemp("samples") / "s.npz"
    result = sample(path)
    assert result.exit_code == 0, result.output
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def openmm_energies(molecule: Molecule, positions_nm: NDArray) -> NDArray:
    potential = OpenMMPotential(build_system(molecule), temperature_kelvin=300.0)
    return potential.reduced_potential(torch.from_numpy(positions_nm)).numpy()


def test_an_archive_holds_everything(archive: dict[str, NDArray], molecule: Molecule) -> None:
    assert tuple(archive["atom_names"]) == molecule.atom_names
    energies = openmm_energies(molecule, archive["positions_nm"])
    np.testing.assert_allclose(archive["reduced_potential"], energies, atol=1e-4)
    np.testing.assert_allclose(
        archive["log_weights"], -energies - archive["log_density"], atol=1e-4
    )
    assert archive["temperature_kelvin"] == 300.0


@pytest.mark.parametrize(
    ("suffix", "lowest_error_kT", "highest_error_kT"),
    [(".dcd", 0, 1e-3), (".pdb", 0, 0.2), (".xtc", 0.3, 2)],
)
def test_trajectories_are_read_back_by_mdtraj(
    archive: dict[str, NDArray],
    molecule: Molecule,
    tmp_path: Path,
    suffix: str,
    lowest_error_kT: float,
    highest_error_kT: float,
) -> None:
    """In the right order of atoms: OpenMM's energies are those of before, but for rounding."""
    path = tmp_path / f"s{suffix}"
    result = sample(path, "--json")
    assert result.exit_code == 0, result.output
    files = [Path(file) for file in json.loads(result.stdout)["files"]]
    assert sorted(files) == sorted(tmp_path.iterdir())
    topology = {} if suffix == ".pdb" else {"top": str(tmp_path / "s.topology.pdb")}
    trajectory = mdtraj.load(str(path), **topology)
    assert tuple(atom.element.symbol for atom in trajectory.topology.atoms) == molecule.elements
    assert trajectory.topology.n_bonds == len(molecule.bonds)
    with np.load(tmp_path / "s.weights.npz", allow_pickle=False) as beside:
        np.testing.assert_array_equal(beside["log_weights"], archive["log_weights"])
        errors = openmm_energies(molecule, trajectory.xyz) - beside["reduced_potential"]
    assert lowest_error_kT <= np.sqrt(np.mean(errors**2)) < highest_error_kT
    assert ("for viewing only" in result.stderr) == (suffix == ".xtc")


def test_samples_are_weighted_to_another_temperature_and_force_field(
    molecule: Molecule, tmp_path: Path
) -> None:
    files = ("amber99sbildn.xml", "amber99_obc.xml")
    path = tmp_path / "s.npz"
    result = sample(path, "--temperature", "350", "--to", ",".join(files))
    assert result.exit_code == 0, result.output
    potential = OpenMMPotential(build_system(molecule, files), temperature_kelvin=350.0)
    with np.load(path, allow_pickle=False) as arrays:
        expected = potential.reduced_potential(torch.from_numpy(arrays["positions_nm"])).numpy()
        np.testing.assert_allclose(arrays["reduced_potential"], expected, atol=1e-3)
        np.testing.assert_allclose(
            arrays["log_weights"], -expected - arrays["log_density"], atol=1e-3
        )
        assert arrays["temperature_kelvin"] == 350.0
    assert_refused(sample(tmp_path / "t.npz", "--to", "amber00.xml"), "amber00.xml")
    assert_refused(sample(tmp_path / "t.npz", "--temperature", "-3"), "temperature_kelvin")


def test_annealed_samples_weigh_more_evenly_and_resampled_ones_alike(tmp_path: Path) -> None:
    def record(name: str, *arguments: str) -> dict:
        result = sample(tmp_path / name, "-n", "300", "--json", *arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    plain, annealed = record("a.npz"), record("b.npz", "--anneal", "8", "--resample", "400")
    assert annealed["ess_fraction"] > plain["ess_fraction"] + 0.05
    assert annealed["num_written"] == 400
    assert annealed["num_levels"] == 8
    assert plain["num_levels"] is None
    with np.load(tmp_path / "b.npz", allow_pickle=False) as arrays:
        assert len(arrays["positions_nm"]) == 400
        assert np.ptp(arrays["log_weights"]) == 0
        assert annealed["num_distinct"] == len(np.unique(arrays["reduced_potential"])) < 300
    chosen = record("d.npz", "--anneal", "auto")
    assert chosen["num_levels"] > 8
    assert chosen["ess_fraction"] > plain["ess_fraction"] + 0.05
    for levels in ("0", "-3", "many", "1.5"):
        refused = sample(tmp_path / "c.npz", "--anneal", levels)
        assert refused.exit_code == 2
        said = " ".join(refused.output.replace("│", " ").split())
        assert "expected a number of levels from 1 on, or auto" in said


def test_annealing_is_by_default_what_the_run_did(tmp_path: Path) -> None:
    generator = load_shipped("ACE-ALA-NME")
    settings = AnnealingConfig(num_levels=3, num_leapfrog=2).model_dump(mode="json")
    path, written = tmp_path / "model.pt", tmp_path / "s.npz"
    replace(generator, metrics={"annealing_settings": settings}).save(path)
    arguments = ("--model", path, "-n", 20, "--anneal", "auto", "--json", "-o", written)
    result = bnce("sample", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_levels"] == 3
    expected = generator.sample(
        20, annealing=AnnealingConfig(num_levels=3, num_leapfrog=2), progress=False
    )
    with np.load(written, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["log_weights"], expected.log_weights)
    assert generator.annealing == AnnealingConfig()


@pytest.mark.slow
def test_an_amber_model_is_annealed_to_xtb(molecule: Molecule, tmp_path: Path) -> None:
    xtb = pytest.importorskip("bnce_dist.chem.potentials.xtb")
    pytest.importorskip("tblite", reason="tblite is not installed")
    path = tmp_path / "s.npz"
    result = sample(path, "-n", "6", "--to", "xtb")
    assert result.exit_code == 0, result.output
    with np.load(path, allow_pickle=False) as arrays:
        potential = xtb.XTBPotential(molecule, 300.0)
        expected = potential.reduced_potential(torch.from_numpy(arrays["positions_nm"])).numpy()
        np.testing.assert_allclose(arrays["reduced_potential"], expected, atol=1e-3)


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "s.dcd"
    weights = tmp_path / "s.weights.npz"
    weights.write_text("precious")
    assert_refused(sample(path), "s.weights.npz", "--overwrite")
    assert [file.name for file in tmp_path.iterdir()] == [weights.name]
    assert weights.read_text() == "precious"
    assert sample(path, "--overwrite").exit_code == 0
    assert weights.read_bytes()[:2] == b"PK"


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    assert_refused(sample(tmp_path / "s.xtx"), ".npz, .dcd, .pdb, .xtc", "the nearest is .xtc")
    assert_refused(sample(path, "--model", "runs/mine"), "got no such file; check the path")
    assert_refused(sample(path, "--model", SHIPPED), "kind shared_generator", "got")
    assert_refused(sample(path, "--model", tmp_path), "that of a run of many", "sequence out")
    assert_refused(bnce("sample", "--model", tmp_path, "-o", path), "no config.yaml", "a sequence")
    assert_refused(bnce("sample", "-o", path), "got none")
    assert_refused(bnce("sample", "--sequence", "AC", "-o", path), "ACE-ALA-NME", "bnce train")
    assert_refused(bnce("sample", "--model", tmp_path / "m.pt", "-o", path), "generator file")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    nowhere = sample(tmp_path / "file" / "s.npz")
    # Said before anything was drawn: there is no line of progress.
    assert_refused(nowhere, "cannot write", "choose another --output")


def test_the_shipped_model_is_right_about_its_molecule() -> None:
    """Against the long umbrella sampling, which knows nothing of the model."""
    result = bnce("evaluate", "--sequence", "ACE-ALA-NME", "-n", 4000, "--json", "--strict")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    stderr = np.hypot(record["delta_f_stderr_kT"], record["delta_f_reference_stderr_kT"])
    assert abs(record["delta_f_kT"] - record["delta_f_reference_kT"]) < 4 * stderr
    assert record["ess_fraction"] > 0.25
    assert record["verdict"]["reliable"]


def test_an_unreliable_estimate_has_an_exit_code_of_its_own() -> None:
    arguments = ("evaluate", "--sequence", "ACE-ALA-NME", "-n", 100)
    assert bnce(*arguments).exit_code == 0
    strict = bnce(*arguments, "--strict")
    assert strict.exit_code == 3
    assert "UNRELIABLE" in strict.stdout
    assert "(num_samples)" in strict.stdout


def test_an_estimate_says_how_it_was_annealed() -> None:
    arguments = ("evaluate", "--sequence", "ACE-ALA-NME", "-n", 100, "--anneal", 3)
    assert json.loads(bnce(*arguments, "--json").stdout)["num_levels"] == 3
    assert "annealing            3 levels\n" in bnce(*arguments).stdout


def test_an_exported_model_samples_like_the_original(tmp_path: Path) -> None:
    original = Path(__file__).parents[2] / "bnce_dist" / "models" / "ace-ala-nme.pt"
    assert bnce("export", original, tmp_path / "copy.pt", "--half").exit_code == 0
    assert_refused(bnce("export", original, tmp_path / "copy.pt"), "--overwrite")
    for model, name in ((original, "a"), (tmp_path / "copy.pt", "b")):
        output = tmp_path / f"{name}.npz"
        assert bnce("sample", "--model", model, "-n", 3, "-o", output).exit_code == 0
    samples = [np.load(tmp_path / f"{name}.npz") for name in "ab"]
    np.testing.assert_array_equal(samples[0]["positions_nm"], samples[1]["positions_nm"])
