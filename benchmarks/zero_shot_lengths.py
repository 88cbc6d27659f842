"""Chains longer than any that the zero-shot field learned from, by the same file.

The field and density of benchmarks/zero_shot.pt learned from dipeptides alone. Here they are asked
about chains of two to five residues, annealed, by learned densities alone: how many samples are
effective tells how far they carry.

    python benchmarks/zero_shot_lengths.py --write
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from record import publish

from bnce_dist.chem.molecule import Molecule

MODEL = Path(__file__).parent / "zero_shot.pt"
CHAINS = ("KS", "GAS", "SAG", "GASA", "ASGAS")
NUM_SAMPLES = 1_000
KEPT = (
    "delta_f_kT",
    "delta_f_stderr_kT",
    "ess_fraction",
    "pareto_k",
    "num_rejected",
    "verdict",
)


def main(
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Ask about every chain, print one JSON line and write it if asked."""
    numbers = {
        "num_samples": NUM_SAMPLES,
        "chains": {chain: asked(chain) for chain in CHAINS},
    }
    publish("zero_shot_lengths", numbers, ("torch", "openmm"), write=write)


def asked(chain: str) -> dict[str, Any]:
    """Return what the model says of a chain, annealed, and one-step for comparison."""
    started = time.monotonic()
    annealed = evaluated(chain, "--anneal", "auto")
    seconds = time.monotonic() - started
    one_step = evaluated(chain)
    molecule = Molecule.from_sequence(chain)
    return {name: annealed.get(name) for name in KEPT} | {
        "num_residues": len(chain),
        "num_atoms": molecule.num_atoms,
        "ess_fraction_one_step": one_step["ess_fraction"],
        "seconds": seconds,
    }


def evaluated(chain: str, *options: object) -> dict[str, Any]:
    """Return the record of ``bnce evaluate``."""
    command = [
        Path(sys.executable).with_name("bnce"),
        "evaluate",
        "--model",
        MODEL,
        "--sequence",
        chain,
    ]
    command += ["--num-samples", NUM_SAMPLES, "--json", *options]
    run = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return dict(json.loads(run.stdout))


if __name__ == "__main__":
    typer.run(main)
