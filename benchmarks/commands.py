"""What the README's first commands print.

python benchmarks/commands.py --write
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from record import publish

COMMANDS = {
    "sample": "bnce sample --sequence ACE-ALA-NME -n 1000 -o samples.npz",
    "evaluate": "bnce evaluate --sequence ACE-ALA-NME --num-exact 1000",
}


def printed(command: str) -> list[str]:
    """Return the lines a command prints, run in a folder of its own."""
    program, *arguments = shlex.split(command)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(sys.executable).with_name(program))
        done = subprocess.run(
            [path, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    return done.stdout.splitlines()


def main() -> None:
    """Run the commands, print one JSON line and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the committed record")
    arguments = parser.parse_args()
    outputs = {
        name: {"command": command, "output": printed(command)} for name, command in COMMANDS.items()
    }
    publish("commands", {"commands": outputs}, ["bnce_dist", "torch"], write=arguments.write)


if __name__ == "__main__":
    main()
