"""Chains of several residues, judged at every phi, beside the published samplers of their kind.

Runs that are finished already are not repeated. Every phi has a free energy by the run's samples
and one by its reference, whose windows hold the first phi and psi alone: replicas that disagree
about another phi show that it has not been equilibrated. ``--own-windows`` simulates the chain anew
for each of those, with windows in that residue. ``--refine`` goes on from the finished run with
training data from its annealed samples, and judges that as well.

    python benchmarks/oligopeptides.py ACE-ALA-ALA-ALA-NME --output runs --refine --write
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from alanine_dipeptide import JOB, KEPT, kept
from record import FOLDER, publish

from bnce_dist.chem.order_parameters import find_order_parameter
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.core.errors import InputError
from bnce_dist.core.metrics import torus_wasserstein_2
from bnce_dist.core.weights import Weights
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.runs.finished import FinishedRun, ReferenceFrames
from bnce_dist.runs.states import states

CONFIG = JOB.parent / "configs" / "oligopeptides.yaml"
MATCHED_POINTS = 2000
"""Points of the optimal matchings of torsions."""
RECORD = "oligopeptides"
BNCE = Path(sys.executable).with_name("bnce")
NO_TRAINING_DATA = ("dataset.num_chains=2", "dataset.frames_per_chain=2")
"""Of a simulation that is for comparison alone."""
PUBLISHED = {
    "FALCON (2512.09914)": {
        "AL3": {"ess_fraction": 0.077, "energy_w2": 0.544},
        "AL4": {"ess_fraction": 0.055, "energy_w2": 0.686},
        "AL6": {"ess_fraction": 0.060, "energy_w2": 0.892},
    },
    "SBG, one step": {
        "AL3": {"ess_fraction": 0.052, "energy_w2": 0.758},
        "AL4": {"ess_fraction": 0.046, "energy_w2": 1.068},
        "AL6": {"ess_fraction": 0.034, "energy_w2": 1.021},
    },
    "CMT (2510.18460)": {"AL6": {"ess_fraction": 0.2963}, "ELIL": {"ess_fraction": 0.2606}},
    "TA-BG": {"AL6": {"ess_fraction": 0.1822}, "ELIL": {"ess_fraction": 0.1375}},
}
"""Of other people, at 10,000 samples or more: what AL3 is differs between papers."""
KEPT_HERE = (
    *KEPT,
    "delta_f_reference_run_reason",
    "ess_fraction_learned",
    "pareto_k_learned",
    "num_rejected",
    "energy_w2_emulator_kT",
    "energy_w2_baseline_kT",
    "energy_w2_learned_kT",
    "log_density_error_sd_kT",
)


def main(
    sequences: Annotated[list[str], typer.Argument(help="Chains, e.g. ACE-ALA-ALA-ALA-NME.")],
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    own_windows: Annotated[
        bool,
        typer.Option("--own-windows", help="Simulate other phis in windows of their own."),
    ] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Also go on from each run, once, and judge that.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run what has not run yet, print one JSON line and write it if asked.

    Chains of the record that are not named stay as they are, with the commit of their run.
    """
    recorded = FOLDER / f"{RECORD}.json"
    chains = read_json(recorded)["chains"] if recorded.exists() else {}
    for sequence in sequences:
        folder = output / sequence
        run_unless_finished(folder, "--config", CONFIG, f"target.sequence={sequence}")
        chains[sequence] = judged(folder) | {"phis": _phis(folder, own_windows)}
        if refine:
            refined = folder.with_name(f"{sequence}_refined")
            run_unless_finished(refined, "--refine", folder)
            chains[refined.name] = _with_core_hours_before(judged(refined), chains[sequence])
            chains[refined.name]["phis"] = _phis(refined, own_windows=False)
    numbers = {"chains": chains, "published": PUBLISHED}
    publish(RECORD, numbers, ("torch", "openmm", "ray"), write=write)


def run_unless_finished(folder: Path, *arguments: str | Path) -> None:
    """Run a chain in a folder of its own, or finish it."""
    if not (folder / "metrics.json").exists():
        place = ("--output", folder.parent, "--name", folder.name)
        subprocess.run([sys.executable, JOB, *place, *arguments], check=True)


def judged(folder: Path) -> dict[str, Any]:
    """Return what is kept of a chain's finished run, but for single torsions."""
    metrics, run = read_json(folder / "metrics.json"), FinishedRun.open(folder)
    frames = run.reference_frames()
    if frames is None:
        raise InputError(
            f"run {folder}", expected="its own umbrella sampling", got="none",
            remedy="leave reference.trajectory out",
        )  # fmt: skip
    return {
        **kept(metrics, KEPT_HERE),
        "equilibration_ps": run.config.reference.equilibration_ps,
        "annealing_min_ess_fraction": run.config.evaluate.annealing.min_ess_fraction,
        "num_atoms": run.target.molecule.num_atoms,
        "core_hours": 2 * sum(metrics["seconds"].values()) / 3600,
        "num_energies": _num_energies(run),
        "num_frames": len(frames.log_weights),
        "ess_frames": Weights(frames.log_weights).ess,
        **_torsion_distances(run, frames),
    }


def _with_core_hours_before(refined: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a refined run, with what the run before it cost."""
    num_energies = {
        name: before["num_energies"][name] + refined["num_energies"][name]
        for name in before["num_energies"]
    }
    return refined | {
        "core_hours": before["core_hours"] + refined["core_hours"],
        "num_energies": num_energies,
    }


def _phis(folder: Path, own_windows: bool) -> list[dict[str, Any]]:
    """Return the free energy of every phi being positive, by one ensemble after the other."""
    run = FinishedRun.open(folder)
    phis = [_phi(folder, name) for name in _backbone(run) if name.startswith("phi")]
    for phi in phis[1:] if own_windows else ():
        sequence = str(run.config.target.sequence)
        phi["own_windows"] = _own_windows(sequence, phi["name"], folder.parent)
    return phis


def _backbone(run: FinishedRun) -> list[str]:
    """Return the names of every phi and psi of a capped peptide."""
    sequence = str(run.config.target.sequence).split("-")
    inner = range(2, len(sequence))
    return [f"{kind}:{number}" for number in inner for kind in ("phi", "psi")]


def _phi(folder: Path, name: str) -> dict[str, Any]:
    """Return the free energy of one phi being positive, by the samples and by the reference.

    Too few effective samples of that are no number.
    """
    ensembles = states(folder, {"positive": f"{name} in [0, 2]"}).record()["ensembles"]
    found = {}
    for key, ensemble in (("delta_f", "reweighted"), ("reference", "reference")):
        record = ensembles[ensemble]
        if not {"positive", "rest"} <= set(record["names"]):
            continue
        row, column = (record["names"].index(state) for state in ("positive", "rest"))
        found |= {
            f"{key}_kT": record["differences_kT"][row][column],
            f"{key}_stderr_kT": record["difference_stderrs_kT"][row][column],
        }
    return {"name": name, **found}


def _own_windows(sequence: str, phi: str, output: Path) -> dict[str, Any]:
    """Return the free energy of a phi being positive by umbrellas in that residue."""
    name = f"{sequence}_{phi.replace(':', '')}"
    arguments = ["--config", CONFIG, "--output", output, "--name", name]
    torsions = f"target.torsions=[{phi},{phi.replace('phi', 'psi')}]"
    settings = [f"target.sequence={sequence}", torsions, *NO_TRAINING_DATA]
    subprocess.run([BNCE, "simulate", *arguments, *settings], check=True)
    return Reference.load(RunFolder(output / name).stage("simulate")).result


def _torsion_distances(run: FinishedRun, frames: ReferenceFrames) -> dict[str, float]:
    """Return how far all phi and psi are from the reference's, and two draws of that [rad]."""
    named = [find_order_parameter(run.target.molecule, name) for name in _backbone(run)]
    torsions, of_frames = (
        np.stack([parameter.values(positions) for parameter in named], axis=1)
        for positions in (run.positions_nm(), frames.positions_nm)
    )
    weights = Weights(run.evaluation.samples.log_weights).normalised
    of_reference = np.exp(frames.log_weights)
    options = {"num_points": MATCHED_POINTS, "seed": 0}
    return {
        "torsion_w2_all_rad": torus_wasserstein_2(
            torsions, of_frames, weights, of_reference, **options
        ),
        "torsion_w2_all_baseline_rad": torus_wasserstein_2(
            of_frames, of_frames, of_reference, of_reference, **options
        ),
    }


def _num_energies(run: FinishedRun) -> dict[str, int]:
    """Return how often the force field was asked, with or without forces, by what for.

    A refined run takes its reference over.
    """
    reference, dataset, evaluate = run.config.reference, run.config.dataset, run.config.evaluate
    is_refined = run.config.refines is not None
    steps_of_umbrella = (reference.burn_in_ps + reference.total_ps) * 1e3 / reference.timestep_fs
    umbrellas = 0 if is_refined else reference.num_tasks * reference.num_phi * reference.num_psi
    chain_ps = dataset.equilibration_ps + dataset.frames_per_chain * dataset.frame_interval_ps
    accepted = ShardedDataset.open(run.folder.stage("evaluate") / "annealed").load(["accepted"])
    num_levels = accepted["accepted"].shape[1]
    gradients = num_levels * evaluate.annealing.num_leapfrog + 2
    return {
        "reference": round(steps_of_umbrella * umbrellas),
        "dataset": round(dataset.num_chains * chain_ps * 1e3 / dataset.timestep_fs),
        "annealing": evaluate.num_samples * gradients,
    }


if __name__ == "__main__":
    typer.run(main)
