"""Profiles of a finished run along any torsion: table, figure, and what is refused."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bnce_dist.cli.profile import app
from bnce_dist.core.errors import InputError
from bnce_dist.runs.profile import REFERENCE, REWEIGHTED, profile


def rows(path: Path) -> list[list[str]]:
    with path.open() as stream:
        return list(csv.reader(stream))


def test_a_profile_is_normalised_and_knows_its_reference(finished_run: Path) -> None:
    along = profile(finished_run, "psi").along(36)
    assert set(along) == {REWEIGHTED, REFERENCE}
    for found in along.values():
        assert np.exp(-found.value_kT).sum() * 2 * math.pi / 36 == pytest.approx(1.0)
        shown = np.isfinite(found.value_kT)
        assert (found.lower_kT <= found.value_kT + 1e-9)[shown].all()


def test_the_first_torsion_is_that_of_the_runs_own_samples(finished_run: Path) -> None:
    from bnce_dist.chem.simulation.reference_frames import Reference

    own = profile(finished_run, "phi").ensembles[REFERENCE]
    reference = Reference.load(finished_run / "simulate")
    # Positions are recorded less often than angles, each time with the last of them.
    recorded = np.sort(own.values[:, 0])
    nearest = np.abs(np.sort(reference.phi)[:, None] - recorded[None, ::50]).min(axis=0)
    assert nearest.max() < 1e-4


def test_the_command_writes_a_table_and_a_figure(finished_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, [str(finished_run), "--along", "psi", "--num-bins", "24", "-o", str(tmp_path / "psi")]
    )
    assert result.exit_code == 0, result.output
    *files, note = result.stdout.splitlines()
    assert [Path(line).name for line in files] == ["psi.csv", "psi.png"]
    assert note.startswith("Bands are of sampling alone")
    header, *body = rows(tmp_path / "psi.csv")
    assert header[:2] == ["psi [degree]", "Reweighted [kT]"]
    assert len(header) == 7
    assert [float(row[0]) for row in body] == pytest.approx(np.arange(-172.5, 180, 15))
    assert (tmp_path / "psi.png").stat().st_size > 5_000


def test_two_torsions_make_a_surface(finished_run: Path, tmp_path: Path) -> None:
    arguments = ["--along", "phi", "--and", "psi", "--num-bins", "12", "-o", str(tmp_path / "map")]
    result = CliRunner().invoke(app, [str(finished_run), *arguments])
    assert result.exit_code == 0, result.output
    header, *body = rows(tmp_path / "map.csv")
    assert header == ["phi [degree]", "psi [degree]", "Reweighted [kT]", "Reference [kT]"]
    assert len(body) == 144
    assert min(float(row[2]) for row in body if row[2]) == 0.0


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("chi1", "no residue with it"),
        ("chi9", "expected one of phi, psi, omega,"),
        ("phi:9", "none there"),
        ("distance(1:O,1:O)", "expected 2 different atoms"),
    ],
)
def test_a_torsion_that_is_none_is_one_line(finished_run: Path, name: str, line: str) -> None:
    result = CliRunner().invoke(app, [str(finished_run), "--along", name])
    assert result.exit_code == 2
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a finished run, got no metrics\.json"):
        profile(tmp_path, "phi")


def test_a_distance_has_an_axis_of_its_own(finished_run: Path, tmp_path: Path) -> None:
    name = "distance(1:O,3:N)"
    stem = tmp_path / "oxygen"
    arguments = [str(finished_run), "--along", name, "--num-bins", "10", "-o", str(stem)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    header, *body = rows(tmp_path / "oxygen.csv")
    assert header[0] == "distance(1:O,3:N) [nm]"
    centres = np.array([float(row[0]) for row in body])
    values = profile(finished_run, name).ensembles[REWEIGHTED].values
    assert 0.1 < centres[0] < values.mean() < centres[-1] < 1.0
    density = np.array([math.exp(-float(row[1])) if row[1] else 0.0 for row in body])
    assert density.sum() * (centres[1] - centres[0]) == pytest.approx(1.0, abs=0.01)
    refused = CliRunner().invoke(app, [*arguments, "--overwrite", "--and", "psi"])
    assert "expected two torsions, got distance" in refused.stderr


def test_a_file_of_ones_own_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("mine")
    arguments = [str(tmp_path / "run"), "--along", "psi", "-o", str(own.with_suffix(""))]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "output file" in refused.stderr
    assert "give --overwrite" in refused.stderr
    # Then it is the run that is missing.
    allowed = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert "expected a finished run" in allowed.stderr
