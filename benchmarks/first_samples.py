"""How long a newcomer waits: the command's help, the import, samples of the shipped model.

python benchmarks/first_samples.py --write
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from record import publish, summary

BNCE = Path(sys.executable).with_name("bnce")
COMMANDS: dict[str, list[str | Path]] = {
    "help": [BNCE, "--help"],
    "import_torch": [sys.executable, "-c", "import torch"],
    "import_torch_and_package": [sys.executable, "-c", "import torch, bnce_dist"],
    "sample_1000": [BNCE, "sample", "--sequence", "ACE-ALA-NME", "-n", "1000", "-o", "s.npz"],
}


def seconds(command: list[str | Path]) -> float:
    """Return the wall time of a command in a folder of its own [s]."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - started


def main(
    rounds: Annotated[int, typer.Option(help="Runs of each command.")] = 5,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    numbers = {
        "unit": "seconds",
        "rounds": rounds,
        "first_sample_1000": times["sample_1000"][0],
        **{name: summary(values) for name, values in times.items()},
    }
    publish("first_samples", numbers, ["torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
