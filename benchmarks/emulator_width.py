"""What a narrower emulator costs and how rough its exact densities are: of finished runs.

Two runs of one molecule with the same reference and data set, of which only the emulator's settings
differ, are told apart by them.

    python benchmarks/emulator_width.py runs/wide/NY runs/dipeptides/NY --write
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from record import publish

from bnce_dist.config.load import load_config
from bnce_dist.data.atomic import read_json
from bnce_dist.pipeline.config import Config

KEPT = (
    "log_density_error_sd_kT",
    "exact_cpu_seconds_per_sample",
    "num_exact_in_state",
    "num_exact_outside_state",
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_reference_run_kT",
    "ess_fraction",
    "ess_fraction_learned",
    "ess_fraction_learned_one_step",
    "commit",
)


def emulator_of(folder: Path) -> dict[str, Any]:
    """Return a run's emulator's settings and what came of them."""
    config = load_config(Config, folder / "config.yaml")
    metrics, emulator = read_json(folder / "metrics.json"), config.emulator
    return {
        "molecule": config.target.sequence,
        "width": emulator.width,
        "num_steps": emulator.num_steps,
        "train_seconds": metrics["seconds"]["train_emulator"],
        **{name: metrics[name] for name in KEPT},
    }


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Read, print one JSON line, and write it if asked."""
    found = sorted((emulator_of(run) for run in runs), key=lambda x: (x["molecule"], -x["width"]))
    publish("emulator_width", {"runs": found}, ("torch",), write=write)


if __name__ == "__main__":
    typer.run(main)
