"""The ``bnce`` command: what it lists is there, its examples parse, and listing is cheap."""

import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bnce_dist.cli.main import COMMANDS, RENAMED, app

# What the console script does.
SCRIPT = "import sys; from bnce_dist.cli.main import app; app(prog_name='bnce')"


def command(name: str) -> Any:
    return typer.main.get_command(import_module(f"bnce_dist.cli.{COMMANDS[name][0]}").app)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    first_paragraph = command(name).help.split("\n\n")[0]
    assert " ".join(first_paragraph.split()) == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_help_can_be_pasted(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "Example: " in line)
    program, used, *arguments = shlex.split(line.partition("Example: ")[2])
    assert (program, used) == ("bnce", name)
    with command(name).make_context(name, arguments) as context:
        assert context.params


def test_a_mistyped_command_is_one_hint() -> None:
    result = CliRunner().invoke(app, ["sampel"])
    assert result.exit_code == 2
    assert "Did you mean 'sample'?" in result.stderr


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_earlier_name_of_a_command_names_the_new_one(old: str, new: str) -> None:
    result = CliRunner().invoke(app, [old, "--help"])
    assert (result.exit_code, new in COMMANDS) == (2, True)
    assert result.stderr == f"error: bnce {old} is called bnce {new} now\n"


@pytest.mark.parametrize("old", ["toy", "evaluate_published", "sample_published"])
def test_the_earlier_name_of_a_job_names_the_new_one(old: str) -> None:
    jobs = Path(__file__).parents[2] / "jobs"
    done = subprocess.run([sys.executable, jobs / f"{old}.py"], capture_output=True, text=True)
    assert done.returncode == 2
    new = done.stderr.split()[-2]
    assert done.stderr.count("\n") == 1
    assert (jobs.parent / new).exists()


def test_listing_the_commands_imports_nothing_heavy() -> None:
    code = SCRIPT.replace(
        "app(", "import atexit; atexit.register(lambda: print(*sys.modules)); app("
    )
    listing = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in listing for name in COMMANDS)
    assert not set(listing.split()) & {"torch", "numpy", "openmm", "ray", "mlflow", "yaml"}


def test_the_package_runs_as_the_command() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "bnce_dist", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "Usage: bnce [" in listing
    assert all(name in listing for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"), [("bnce exp", "export"), ("bnce export --ov", "--overwrite")]
)
def test_shells_complete_commands_and_their_options(words: str, expected: str) -> None:
    completion = {
        "_BNCE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | completion, capture_output=True, text=True
    )
    assert done.stdout.split() == [expected]
