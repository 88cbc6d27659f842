"""A first look at one model in internal coordinates for a molecule it has never seen.

Four uncapped dipeptides teach, each simulated without umbrellas; one that has the same residues in
the same places is asked. Small on purpose: minutes of one core. Its reference is that of the record
`dipeptides.json`, of the same force field and temperature; the run's own, very short umbrella
simulation is compared with nothing.

    python benchmarks/zero_shot.py --output runs --write
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from alanine_dipeptide import JOB, kept
from record import FOLDER, publish

from bnce_dist.chem.coordinates.types import Blocks, StiffTypes
from bnce_dist.chem.molecule import Molecule
from bnce_dist.data.atomic import read_json
from bnce_dist.runs.fleet.table import PUBLISHED_MD_DELTA_F_KT
from bnce_dist.runs.transferable.internal import training_positions

CONFIG = JOB.parent / "configs" / "zero_shot.yaml"
TAUGHT, ASKED = ("AA", "AG", "GC", "SC"), "AC"
SETTINGS = (
    f"transferable.training_molecules=[{','.join(TAUGHT)}]",
    "spread.num_structures=96",
    "spread.num_relaxation_steps=150",
    "dataset.num_chains=64",
    "dataset.frames_per_chain=32",
    "dataset.frame_interval_ps=0.1",
    "dataset.equilibration_ps=0.5",
    "transferable.num_steps=300",
    "transferable.global_batch_size=128",
    "transferable.num_ode_steps=10",
    "transferable.ema_decay=0.98",
    "token_field.width=64",
    "token_field.num_heads=4",
    "token_field.depth=3",
    "reference.num_tasks=1",
    "reference.num_psi=4",
    "reference.flattening_stages=1",
    "reference.flattening_ps=0.2",
    "reference.burn_in_ps=0.1",
    "reference.equilibration_ps=0.1",
    "reference.production_ps=0.9",
    "reference.positions_interval_ps=0.3",
    "reference.num_blocks=3",
    "generate.num_samples=3000",
    "energy.num_steps=500",
    "energy.global_batch_size=256",
    "energy.width=128",
    "energy.depth=2",
    "evaluate.num_samples=1000",
    "evaluate.num_exact=40",
    "evaluate.annealing.num_pilot=200",
    "cluster.executor=local",
    "cluster.compile_force_field=false",
    "tracking.backend=none",
)
KEPT = (
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_interval_kT",
    "delta_f_learned_kT",
    "delta_f_learned_stderr_kT",
    "delta_f_one_step_kT",
    "delta_f_learned_one_step_kT",
    "ess_fraction",
    "ess_fraction_one_step",
    "ess_fraction_learned",
    "ess_fraction_learned_one_step",
    "ess_num_samples",
    "ess_in_state",
    "pareto_k",
    "num_rejected",
    "annealing_num_levels",
    "log_density_error_sd_kT",
    "reliable",
)


def main(
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    name: Annotated[str, typer.Option(help="Folder of the run.")] = "zero_shot",
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run what has not run yet, print one JSON line and write it if asked."""
    arguments = ["--transferable", "--config", CONFIG, "--molecules", ASKED, *SETTINGS]
    subprocess.run(
        [sys.executable, JOB, *arguments, "--output", output, "--name", name, "--resume"],
        check=True,
    )
    asked = output / name / f"{ASKED}_zero_shot"
    metrics = read_json(asked / "metrics.json")
    reference = read_json(FOLDER / "dipeptides.json")["molecules"][ASKED]
    history = read_json(output / name / "field" / "train_emulator" / "history.json")
    numbers = {
        "training_molecules": list(TAUGHT),
        "molecule": ASKED,
        "num_frames": len(np.load(output / name / "field" / "train_emulator" / "z.npy")),
        **kept(metrics, KEPT),
        "delta_f_reference_kT": reference["delta_f_reference_run_kT"],
        "delta_f_reference_stderr_kT": reference["delta_f_reference_run_stderr_kT"],
        "published_md_delta_f_kT": PUBLISHED_MD_DELTA_F_KT[ASKED],
        "abs_error_kT": _distance(metrics, "delta_f_kT", reference),
        "abs_error_learned_kT": _distance(metrics, "delta_f_learned_kT", reference),
        "nats_left_by_coordinate": nats_left(output / name, "coordinate"),
        "nats_left_by_centre": nats_left(output / name, "centre"),
        "field_training_cpu_seconds": sum(record["cpu_seconds"] for record in history),
        "field_loss": history[-1]["loss"],
        "asked_seconds": metrics["seconds"],
    }
    publish("zero_shot", numbers, ("torch", "openmm"), write=write)


def nats_left(folder: Path, blocks: Blocks) -> float:
    """Return how far whitening by type leaves the stiff coordinates of the teachers from white.

    The relative entropy of the normal density of their mean and covariance to the standard one, the
    mean over the molecules [nats]: what is left to the network, if nothing were but Gaussian.

    Args:
        folder: Of the run.
        blocks: What is whitened together.
    """
    molecules = [Molecule.from_sequence(sequence) for sequence in TAUGHT]
    positions = [
        training_positions(folder / "training" / molecule.name / "simulate", molecule, seed=0)
        for molecule in molecules
    ]
    types = StiffTypes.fit(molecules, positions, blocks)
    nats = []
    for molecule, frames in zip(molecules, positions, strict=True):
        coordinates, _ = types.coordinates(molecule, {})
        z = coordinates.encode(frames[coordinates.in_basin(frames)])[0]
        stiff = z[:, : coordinates.num_euclidean]
        covariance = torch.cov(stiff.T)
        spread = covariance.trace() + stiff.mean(0).square().sum() - len(covariance)
        nats.append(0.5 * float(spread - torch.linalg.slogdet(covariance).logabsdet))
    return sum(nats) / len(nats)


def _distance(metrics: dict[str, Any], name: str, reference: dict[str, Any]) -> float:
    return abs(float(metrics[name]) - float(reference["delta_f_reference_run_kT"]))


if __name__ == "__main__":
    typer.run(main)
