"""Commands of the README that take seconds are run as they are written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
QUICK = ("--help", "--dry-run", "bnce sample --sequence", "bnce models")


def quick_commands() -> list[str]:
    """Return the quick commands of all blocks, without their comments."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.M)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if any(part in line for part in QUICK)]


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
    if "-o samples.npz" in command:
        assert (tmp_path / "samples.npz").stat().st_size > 10_000
