"""Every option, argument and setting that names a place takes the forms people write."""

from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

import pytest
import yaml
from typer.testing import CliRunner

from bnce_dist import BoltzmannGenerator, Molecule, simulate
from bnce_dist.cli.common import place
from bnce_dist.cli.main import COMMANDS, app
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.config import Config


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_of_every_command_is_read_by_one_function(name: str) -> None:
    module = import_module(f"bnce_dist.cli.{COMMANDS[name][0]}")
    (command,) = (info.callback for info in module.app.registered_commands)
    for parameter, hint in get_type_hints(command, include_extras=True).items():
        annotated, *described = get_args(hint) or (hint,)
        types = get_args(annotated) if isinstance(annotated, UnionType) else (annotated,)
        if Path in types:
            assert described[0].parser is place, parameter


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--output", "s3://b/r"],
        ["train", "target.pdb=s3://b/x.pdb"],
        ["train", "--molecules", "s3://b/m.txt"],
        ["train", "--dry-run", "target.force_field=[amber14-all.xml,s3://b/own.xml]"],
        ["train", "--config", "gs://b/x.yaml"],
        ["preflight", "--output", "s3://b/r"],
        ["evaluate-pretrained", "weights=s3://b/w.pt", "--dry-run"],
        ["sample", "--model", "s3://b/model", "-o", "x.npz"],
        ["export", "s3://b/run", "x.pt"],
        ["report", "s3://b/run"],
    ],
)
def test_object_stores_are_refused_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: place '")
    assert "expected a path that this machine sees" in line
    assert not any(tmp_path.iterdir())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_in_options_and_settings(home: Path) -> None:
    result = CliRunner().invoke(
        app, ["train", "--dry-run", "--output=~/runs", "--name", "x", "seed=1"]
    )
    assert result.exit_code == 0, result.output
    assert f"# output: {home / 'runs' / 'x'}" in result.stdout
    (home / "run.yaml").write_text(yaml.safe_dump({"target": {"pdb": "~/x.pdb"}}))
    config = load_config(Config, home / "run.yaml")
    assert config.target.pdb == str(home / "x.pdb")


def test_places_in_python(home: Path) -> None:
    with pytest.raises(InputError, match="begins with s3:"):
        simulate("ACE-ALA-NME", "s3://b/r")
    with pytest.raises(InputError, match="begins with s3:"):
        simulate("ACE-ALA-NME", "~/r", config="s3://b/r.yaml")
    with pytest.raises(InputError, match="begins with s3:"):
        BoltzmannGenerator.load("s3://b/r")
    with pytest.raises(InputError, match=f"{home}/absent.pdb"):
        Molecule.from_pdb("~/absent.pdb")
