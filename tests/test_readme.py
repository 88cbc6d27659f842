"""Commands of the README that take seconds are run as they are written."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RECORD = ROOT / "benchmarks" / "results" / "commands.json"
QUICK = ("--help", "--dry-run", "bnce sample --sequence", "bnce models")


def quick_commands() -> list[str]:
    """Return the quick commands of all blocks, without their comments."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    commands = "".join(block for language, block in blocks if not language)
    lines = [line.partition("  #")[0].strip() for line in commands.splitlines()]
    return [line for line in lines if any(part in line for part in QUICK)]


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_the_readme_has_such_commands() -> None:
    commands = "\n".join(quick_commands())
    assert all(part in commands for part in QUICK), commands


@pytest.mark.slow
@pytest.mark.parametrize("command", quick_commands())
def test_a_command_works_as_written(command: str, tmp_path: Path) -> None:
    # Jobs are files of the checkout; what is written goes elsewhere.
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    (tmp_path / ".venv").symlink_to(BIN.parent)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command),
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for recorded in json.loads(RECORD.read_text())["commands"].values():
        if recorded["command"] == command:
            shown = "\n".join(recorded["output"])
            assert without_numbers(done.stdout.strip()) == without_numbers(shown)
    if "-o samples.npz" in command:
        assert (tmp_path / "samples.npz").stat().st_size > 10_000


@pytest.mark.slow
def test_an_evaluation_prints_what_the_readme_shows() -> None:
    recorded = json.loads(RECORD.read_text())["commands"]["evaluate"]
    assert recorded["command"] in (ROOT / "README.md").read_text()
    # Fewer samples print the same lines up to the verdict, which is about their number.
    done = subprocess.run(
        shlex.split(f"{BIN}/bnce evaluate --sequence ACE-ALA-NME -n 2000 --num-exact 100"),
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    printed, shown = done.stdout.splitlines(), recorded["output"]
    number = next(i for i, line in enumerate(shown) if line.startswith("verdict"))
    assert printed[number].startswith("verdict")
    assert without_numbers("\n".join(printed[:number])) == without_numbers(
        "\n".join(shown[:number])
    )
