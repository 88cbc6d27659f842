"""The page on molecules shows a command for every kind of input: each one works as written."""

import re
import shlex
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from openmm import app
from typer.testing import CliRunner

from bnce_dist.chem.molecule import Molecule
from bnce_dist.cli.train import app as train
from tests.chem.molecule_files import WRITERS, write_pdb
from tests.chem.substances import alkane

PAGE = Path(__file__).parents[1] / "docs" / "molecules.md"
HEADING = "## Bring your own molecule"


def shown() -> list[list[str]]:
    """Return the arguments of every `bnce train` of the section."""
    section = PAGE.read_text().partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("bnce train ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page names."""
    folder = tmp_path_factory.mktemp("own")
    butane, peptide = alkane(4), Molecule.from_sequence("ACE-ALA-NME")
    for write in WRITERS.values():
        written = write(folder, butane)
        for path in (written.topology, written.coordinates, *written.parameters):
            path.rename(folder / f"butane{path.suffix}")
    write_pdb(folder / "butane.pdb", butane)
    with (folder / "peptide.pdb").open("w") as stream:
        app.PDBFile.writeFile(peptide.topology, peptide.positions_nm * 10, stream, keepIds=True)
    with (folder / "peptide.cif").open("w") as stream:
        app.PDBxFile.writeFile(peptide.topology, peptide.positions_nm * 10, stream, keepIds=True)
    frames = peptide.positions_nm + np.random.default_rng(0).normal(0, 1e-3, (1000, 22, 3))
    trajectory = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(peptide.topology))
    trajectory.save(str(folder / "train.dcd"))
    trajectory.save(str(folder / "equilibrium.xtc"))
    return folder


def test_every_kind_of_input_is_shown() -> None:
    commands = "\n".join(" ".join(arguments) for arguments in shown())
    for part in ("sequence=", "pdb=", ".cif", ".prmtop", ".psf", ".top", ".xml", "trajectory="):
        assert part in commands


@pytest.mark.slow
@pytest.mark.parametrize("arguments", shown(), ids=lambda a: a[0])
def test_a_command_of_the_page_plans_a_run(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(train, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    numbers = re.search(r"molecule: (\d+) atoms, .* (\d+) circular", result.output)
    assert numbers is not None
    if "butane" in arguments[0]:
        # Fourteen atoms, three bonds that turn.
        assert numbers.groups() == ("14", "3")
