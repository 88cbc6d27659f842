"""Seven dipeptides that nobody simulated, by one field and one density in internal coordinates.

Forty others teach, each simulated without umbrellas; what is asked has no simulation at all. The
references are those of the record `dipeptides.json`, of the same force field and temperature; the
folder of its runs, if it is given, adds distances to their simulations. Every molecule is asked
with the density as it is, and with one that learned on from the field's samples of that molecule.

    python benchmarks/zero_shot.py --output runs --write
    python benchmarks/zero_shot.py --output runs --references runs/dipeptides --write
    python benchmarks/zero_shot.py --name more --record zero_shot_more --asked KS,NY --write \
      generate.num_samples=40000 transferable.field=zero_shot.pt
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from alanine_dipeptide import JOB, kept
from record import FOLDER, publish

from bnce_dist.chem.coordinates.types import Blocks, StiffTypes
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.config.load import load_config
from bnce_dist.core.random import generator
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.distances import distances_to_reference
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.results import load_evaluation
from bnce_dist.pipeline.simulated_energies import simulated_energies
from bnce_dist.runs.fleet.table import PUBLISHED_MD_DELTA_F_KT
from bnce_dist.runs.transferable.internal import FILE_NAME, training_positions
from bnce_dist.runs.transferable.run import FINE_TUNED, ZERO_SHOT

CONFIG = JOB.parent / "configs" / "zero_shot.yaml"
ASKED = "AC,ET,GN,IM,KS,NY,NF"
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
    "ess_num_samples",
    "pareto_k",
    "num_rejected",
    "annealing_num_levels",
    "log_density_error_sd_kT",
    "log_density_num_samples",
    "reliable",
    "verdict",
    "seconds",
)
NUM_TIMED = 500


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="That win over the file's.")] = None,
    asked: Annotated[str, typer.Option(help="Molecules, with commas.")] = ASKED,
    record: Annotated[str, typer.Option(help="Name of the record.")] = "zero_shot",
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    name: Annotated[str, typer.Option(help="Folder of the run.")] = "zero_shot",
    references: Annotated[Path | None, typer.Option(help="Folder of a fleet of the seven.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run what has not run yet, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    arguments = ["--transferable", "--config", CONFIG, "--molecules", asked, *(settings or [])]
    subprocess.run(
        [sys.executable, JOB, *arguments, "--output", output, "--name", name], check=True
    )
    folder, known = output / name, read_json(FOLDER / "dipeptides.json")["molecules"]
    molecules: dict[str, dict[str, Any]] = {}
    fine_tuned: dict[str, dict[str, Any]] = {}
    for sequence in asked.split(","):
        simulated = None if references is None else RunFolder(references / sequence)
        for runs, variant in ((molecules, ZERO_SHOT), (fine_tuned, FINE_TUNED)):
            run = RunFolder(folder / f"{sequence}_{variant}")
            if run.path.exists():
                runs[sequence] = of_molecule(run, sequence, known[sequence], simulated)
    numbers = {**of_field(folder), **means(molecules), "molecules": molecules}
    if fine_tuned:
        numbers["fine_tuned"] = {**means(fine_tuned), "molecules": fine_tuned}
    publish(record, numbers, ("torch", "openmm"), write=write)


def of_field(folder: Path) -> dict[str, Any]:
    """Return what the field learned from, if that is there, and what learning cost."""
    field = folder / "field" / "train_emulator"
    shared = SharedEmulator.load(field / FILE_NAME)
    numbers = {
        "training_molecules": list(shared.training_molecules),
        "field_training_cpu_seconds": sum(record["cpu_seconds"] for record in shared.history),
        "field_loss": shared.history[-1]["loss"],
    }
    energy = folder / "field" / "train_energy" / "history.json"
    if energy.exists():
        history = read_json(energy)
        numbers["energy_training_cpu_seconds"] = sum(record["cpu_seconds"] for record in history)
    if not (folder / "training").exists():
        return numbers
    taught = shared.training_molecules
    return numbers | {
        "num_frames": len(np.load(field / "z.npy")),
        "nats_left_by_coordinate": nats_left(folder, taught, "coordinate"),
        "nats_left_by_centre": nats_left(folder, taught, "centre"),
    }


def of_molecule(
    run: RunFolder, sequence: str, known: dict[str, Any], simulated: RunFolder | None
) -> dict[str, Any]:
    """Return what a run found of a molecule, beside simulations of it that it knows nothing of.

    Args:
        run: The molecule's.
        sequence: Of the molecule.
        known: What the record of simulated dipeptides says of it.
        simulated: Run that simulated the molecule; None if it is not there.
    """
    metrics, config = read_json(run.path / "metrics.json"), load_config(Config, run.config_path)
    reference = float(known["delta_f_reference_run_kT"])
    published = PUBLISHED_MD_DELTA_F_KT[sequence]
    numbers = kept(metrics, KEPT) | {
        "delta_f_reference_kT": reference,
        "delta_f_reference_stderr_kT": known["delta_f_reference_run_stderr_kT"],
        "abs_error_kT": abs(metrics["delta_f_kT"] - reference),
        "abs_error_learned_kT": abs(metrics["delta_f_learned_kT"] - reference),
        "published_md_delta_f_kT": published,
        "abs_error_learned_to_md_kT": abs(metrics["delta_f_learned_kT"] - published),
        "cpu_minutes": cpu_minutes(run, config, metrics),
    }
    if simulated is None:
        return numbers
    target = Target.from_config(config.target)
    samples = load_evaluation(run, target).samples
    simulation = Reference.load(simulated.stage("simulate"))
    its_config = load_config(Config, simulated.config_path)
    energies = simulated_energies(simulated, its_config, target, simulation)
    energy_w2, torsion_w2 = distances_to_reference(
        samples, simulation, energies.energies, config.seed, weighted=True
    )
    return numbers | {
        "energy_w2_kT": energy_w2,
        "energy_w2_baseline_kT": energies.baseline_kT,
        "torsion_w2_rad": torsion_w2,
    }


def cpu_minutes(run: RunFolder, config: Config, metrics: dict[str, Any]) -> float:
    """Return what a molecule cost, as the sum of its parts, on one thread."""
    emulator = Emulator.load(run.stage("train_emulator") / "emulator.pt")
    z_prior = emulator.sample_prior(NUM_TIMED, generator(0, "timed"))
    started = time.process_time()
    with torch.no_grad():
        emulator.transport(z_prior)
    sampling = (time.process_time() - started) / NUM_TIMED
    num_kept = config.evaluate.num_samples
    num_exact = metrics["log_density_num_samples"] + metrics["num_exact_weighted"]
    learning = 0.0
    if run.stage("generate").exists():
        history = read_json(run.stage("train_energy") / "history.json")
        learning = sampling * config.generate.num_samples
        learning += sum(record["cpu_seconds"] for record in history)
    seconds = (
        sampling * num_kept
        + learning
        + metrics["annealing_cpu_seconds_per_sample"] * num_kept
        + metrics["exact_cpu_seconds_per_sample"] * num_exact
    )
    return seconds / 60


def means(molecules: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return means over the molecules, and the smallest effective sample size."""
    runs = list(molecules.values())
    names = (
        *("abs_error_kT", "abs_error_learned_kT", "abs_error_learned_to_md_kT"),
        *("energy_w2_kT", "torsion_w2_rad"),
    )
    return {
        **{
            f"{name}_mean": float(np.mean([run[name] for run in runs]))
            for name in names
            if name in runs[0]
        },
        "ess_fraction_min": min(run["ess_fraction"] for run in runs),
        "num_reliable": sum(run["reliable"] for run in runs),
        "num_intervals_covering_reference": sum(
            run["delta_f_interval_kT"][0]
            <= run["delta_f_reference_kT"]
            <= run["delta_f_interval_kT"][1]
            for run in runs
        ),
        "cpu_minutes_mean": float(np.mean([run["cpu_minutes"] for run in runs])),
    }


def nats_left(folder: Path, taught: tuple[str, ...], blocks: Blocks) -> float:
    """Return how far whitening by type leaves the stiff coordinates of the teachers from white.

    The relative entropy of the normal density of their mean and covariance to the standard one, the
    mean over the molecules [nats]: what is left to the network, if nothing were but Gaussian.

    Args:
        folder: Of the run.
        taught: Sequences of what the field learned from.
        blocks: What is whitened together.
    """
    molecules = [Molecule.from_sequence(sequence) for sequence in taught]
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


if __name__ == "__main__":
    typer.run(main)
