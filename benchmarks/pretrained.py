"""A pretrained field's samples, annealed from our energy model to its authors' target.

The weights, the umbrella-sampling profile and the energies of molecular dynamics are files of the
BoltzNCE repository. What is finished of the run is not repeated.

    python benchmarks/pretrained.py trained_vector_5_layer_ot_ema.pt \
        ad2_umbrella_sampling_means.npz energies_data_holdout_all.npy --output runs --write
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from record import publish

from bnce_dist.data.atomic import read_json

JOB = Path(__file__).parents[1] / "jobs" / "evaluate_pretrained.py"
NAME = "pretrained_adp_xtb"
MD_OFFSET_KT = 34600
PUBLISHED = {
    "boltznce": {"delta_f_kT": 4.08, "stderr_kT": 0.13},
    "ecnf_exact": {"delta_f_kT": 4.09, "stderr_kT": 0.05},
    "gvp_exact": {"delta_f_kT": 4.38, "stderr_kT": 0.67},
}
"""By the authors of the field: their energy model, and exact likelihoods of two fields. Source:
BoltzNCE, arXiv 2507.00846."""
# What two cores make in somewhat more than an hour, not the defaults.
SIZES = (
    "samples.num_training=24000",
    "samples.num_held_out=3000",
    "samples.num_steps=8",
    "samples.shard_size=250",
    "samples.batch_size=250",
    "energy.num_steps=3000",
    "evaluate.num_exact=750",
)


def main(
    weights: Annotated[Path, typer.Argument(help="The field, under its published name.")],
    umbrella: Annotated[Path, typer.Argument(help="The profile along phi.")],
    md_energies: Annotated[Path, typer.Argument(help="The energies.")],
    output: Annotated[Path, typer.Option(help="Folder of the run's folder.")] = Path("runs"),
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run, print one JSON line and write it if asked."""
    options = {
        "--output": output,
        "--name": NAME,
        "--umbrella": umbrella,
        "--md-energies": md_energies,
        "--md-offset": MD_OFFSET_KT,
    }
    arguments = [str(part) for option in options.items() for part in option]
    settings = [f"weights={weights}", "target.potential=xtb", *SIZES]
    subprocess.run([sys.executable, JOB, *arguments, *settings], check=True)
    folder = output / NAME
    config = yaml.safe_load((folder / "config.yaml").read_text())
    history = read_json(folder / "energy" / "history.json")
    numbers = {
        "weights": weights.name,
        "target": "GFN2-xTB with GBSA water, 300 K",
        **read_json(folder / "metrics.json"),
        "published": PUBLISHED,
        "samples": config["samples"],
        "energy_num_steps": config["energy"]["num_steps"],
        "energy_cpu_seconds": sum(record["cpu_seconds"] for record in history),
    }
    publish(NAME, numbers, ("torch", "tblite"), write=write)


if __name__ == "__main__":
    typer.run(main)
