"""Runs without a name are called after what they are of."""

import pytest
from typer.testing import CliRunner

from bnce_dist.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ((), "runs/alanine_dipeptide"),
        (("target.sequence=ACE-GLY-NME",), "runs/ace-gly-nme"),
        (("target.sequence=AC", "--name", "mine"), "runs/mine"),
        (("target.sequence=AC", "--config", "jobs/configs/smoke.yaml"), "runs/smoke"),
    ],
)
def test_the_folder_of_a_run(arguments: tuple[str, ...], folder: str) -> None:
    result = CliRunner().invoke(app, ["train", "--dry-run", *arguments])
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith(f"/{folder}")


def test_one_field_for_many_is_not_planned_as_one_molecule() -> None:
    config = ["--config", "jobs/configs/zero_shot.yaml"]
    result = CliRunner().invoke(app, ["train", "--dry-run", *config])
    assert result.exit_code == 2
    assert "expected --transferable" in result.stderr


def test_no_molecules_are_not_the_default_one() -> None:
    result = CliRunner().invoke(app, ["train", "--dry-run", "--molecules", ""])
    assert result.exit_code != 0
    assert "--molecules: expected different sequences separated by commas" in result.stderr


def test_a_dry_run_has_no_result_to_print() -> None:
    result = CliRunner().invoke(app, ["train", "--dry-run", "--json"])
    assert result.exit_code == 2
    assert "--json with --dry-run: expected a result to print" in result.stderr
