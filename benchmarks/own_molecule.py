"""Molecules and trajectories of one's own: two free energies whose truth is known.

Butane comes as an OpenMM System of its own force field, in which the torsion of the carbons
depends on nothing else, so that its free energy is an integral over one angle. Alanine dipeptide
comes as files: frames of a finished run's simulation stand for a user's trajectory, and nothing is
simulated.

    python benchmarks/own_molecule.py --output runs --run runs/seed0 --write
"""

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openmm
import typer
from alanine_dipeptide import JOB
from openmm import app
from record import publish

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset

TEMPERATURE_KELVIN = 300.0
BOLTZMANN_KJ_MOL_KELVIN = 0.00831446261815324
EDGE = 2 * math.pi / 3
"""Gauche is within this of cis [rad]."""
# k (1 + cos(n phi - phase)) of the carbons: n, phase [rad], k [kJ/mol].
CARBONS = ((1, 0.0, 2.9), (2, math.pi, 0.3), (3, 0.0, 6.3))
METHYL = (3, 0.0, 5.5)
HYDROGENS = (3, 2, 2, 3)
"""Of each carbon."""
KEPT = (
    "delta_f_kT",
    "delta_f_stderr_kT",
    "delta_f_interval_kT",
    "delta_f_learned_kT",
    "delta_f_reference_run_kT",
    "delta_f_reference_run_stderr_kT",
    "ess_fraction",
    "reliable",
    "seconds",
)


def main(
    output: Annotated[Path, typer.Option(help="Folder of the runs' folders.")] = Path("runs"),
    run: Annotated[Path, typer.Option(help="A finished run of alanine dipeptide.")] = Path(
        "runs/seed0"
    ),
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Run both if they have not run yet, print one JSON line and write it if asked."""
    butane = finished(output, "butane", *butane_settings(output / "butane_files"))
    files = finished(output, "own_trajectory", *trajectory_settings(output / "files", run))
    numbers = {
        "butane": {**kept(butane), "delta_f_truth_kT": quadrature()},
        "own_trajectory": {
            **kept(files),
            "delta_f_reference_kT": files["delta_f_reference_kT"],
            "delta_f_reference_stderr_kT": files["delta_f_reference_stderr_kT"],
            "delta_f_reference_source": files["delta_f_reference_source"],
        },
    }
    publish("own_molecule", numbers, ("torch", "openmm", "ray"), write=write)


def finished(output: Path, name: str, *settings: str) -> dict[str, Any]:
    """Return the metrics of a run, made now if it is not there."""
    metrics = output / name / "metrics.json"
    if not metrics.exists():
        arguments = ["--output", output, "--name", name, *settings]
        subprocess.run([sys.executable, JOB, *arguments], check=True)
    return read_json(metrics)


def kept(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what the record holds of a run."""
    return {name: metrics[name] for name in KEPT}


def butane_settings(folder: Path) -> list[str]:
    """Write butane's System and structure, and return the settings of its run."""
    folder.mkdir(parents=True, exist_ok=True)
    topology, positions_nm = butane()
    (folder / "butane.xml").write_text(openmm.XmlSerializer.serialize(system_of(topology)))
    with (folder / "butane.pdb").open("w") as stream:
        app.PDBFile.writeFile(topology, positions_nm * 10, stream)
    return [
        f"target.topology={folder / 'butane.xml'}",
        f"target.coordinates={folder / 'butane.pdb'}",
        "target.torsions=[C1-C2-C3-C4]",
        f"target.state_phi_min={-EDGE:.4f}",
        f"target.state_phi_max={EDGE:.4f}",
        f"target.temperature_kelvin={TEMPERATURE_KELVIN}",
        # Gauche is not rare.
        "dataset.state_fraction=0.5",
    ]


def butane() -> tuple[app.Topology, np.ndarray]:
    """Return the trans form, carbons first, ``(14, 3)`` [nm]."""
    topology = app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    carbon, hydrogen = (app.Element.getBySymbol(symbol) for symbol in "CH")
    atoms = [topology.addAtom(f"C{i + 1}", carbon, residue) for i in range(4)]
    for i in range(3):
        topology.addBond(atoms[i], atoms[i + 1])
    half = math.radians(112.0) / 2
    place = np.arange(-1, 5)
    chain = 0.153 * np.stack([place * math.sin(half), place % 2 * math.cos(half), 0 * place], 1)
    positions = list(chain[1:-1])
    for index, count in enumerate(HYDROGENS):
        outward = 0.0629 * (2 * (index % 2) - 1)
        arms = [np.array([0.0, outward, z]) for z in (0.089, -0.089)]
        if count == 3:
            beyond = chain[0] if index == 0 else chain[-1]
            arms.append((beyond - chain[index + 1]) * 0.109 / 0.153)
        for arm in arms:
            name = f"H{len(positions) - 3}"
            topology.addBond(atoms[index], topology.addAtom(name, hydrogen, residue))
            positions.append(chain[index + 1] + arm)
    return topology, np.array(positions)


def system_of(topology: app.Topology) -> openmm.System:
    """Return harmonic bonds and angles, and torsions of which each depends on itself alone."""
    system = openmm.System()
    near: dict[int, list[int]] = {atom.index: [] for atom in topology.atoms()}
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions = openmm.PeriodicTorsionForce()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    for bond in topology.bonds():
        first, second = bond[0].index, bond[1].index
        to_hydrogen = "H" in (bond[0].element.symbol, bond[1].element.symbol)
        bonds.addBond(first, second, *((0.109, 284_512.0) if to_hydrogen else (0.1526, 259_408.0)))
        near[first].append(second)
        near[second].append(first)
    for centre in range(len(HYDROGENS)):
        for first, second in itertools.combinations(near[centre], 2):
            angles.addAngle(first, centre, second, math.radians(109.5), 400.0)
    for order, phase, height in CARBONS:
        torsions.addTorsion(0, 1, 2, 3, order, phase, height)
    for hydrogen, carbon, *others in ((max(near[0]), 0, 1, 2), (max(near[3]), 3, 2, 1)):
        torsions.addTorsion(hydrogen, carbon, *others, *METHYL)
    for force in (bonds, angles, torsions):
        system.addForce(force)
    return system


def quadrature() -> float:
    """Return f(gauche) - f(trans) by the torsion's own potential [kT]."""
    phi = np.linspace(-math.pi, math.pi, 200_000, endpoint=False)
    energy = sum(k * (1 + np.cos(n * phi - phase)) for n, phase, k in CARBONS)
    weights = np.exp(-energy / (BOLTZMANN_KJ_MOL_KELVIN * TEMPERATURE_KELVIN))
    gauche = weights[np.abs(phi) < EDGE].sum()
    return -math.log(gauche / (weights.sum() - gauche))


def trajectory_settings(folder: Path, run: Path) -> list[str]:
    """Write a run's frames as files, and return the settings of a run that has only them."""
    folder.mkdir(parents=True, exist_ok=True)
    simulation = run / "simulate"
    umbrella = ShardedDataset.open(simulation / "umbrella").load(["positions_nm"])["positions_nm"]
    np.savez(
        folder / "reference.npz",
        positions_nm=umbrella.reshape(-1, *umbrella.shape[-2:]),
        log_weights=Reference.load(simulation).potential_log_weights,
    )
    data = ShardedDataset.open(simulation / "dataset").load(["positions_nm"])["positions_nm"]
    np.savez(folder / "data.npz", positions_nm=data)
    return [
        f"dataset.trajectory={folder / 'data.npz'}",
        f"reference.trajectory={folder / 'reference.npz'}",
    ]


if __name__ == "__main__":
    typer.run(main)
