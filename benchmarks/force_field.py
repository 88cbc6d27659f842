"""Configurations with forces per CPU-second: the batched force field against OpenMM.

Everything runs on one thread of the same machine in alternating rounds, so that whatever else
the machine does hits all alike; every rate is per second of this process's CPU time. OpenMM's
CPU platform is measured twice: evaluated conformation by conformation, and stepping dynamics
on its own, which has no Python in its loop and is the stricter baseline of the ratio.

    OMP_NUM_THREADS=1 python benchmarks/force_field.py --write
"""

import time
from collections.abc import Callable
from typing import Annotated

import openmm
import torch
import typer
from record import publish, summary

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import (
    DEFAULT_FORCE_FIELD,
    ForceField,
    build_system,
)
from bnce_dist.chem.potentials.openmm import OpenMMPotential

BATCH_SIZE = 256
TEMPERATURE_KELVIN = 300.0
ROUND_SECONDS = 0.3
BASELINE, FASTEST = "openmm_cpu_dynamics", "compiled_float32"
# Beside the default: a Born model of expressions, and maps of the backbone.
OTHERS = {"gbn2": ("amber14-all.xml", "implicit/gbn2.xml"), "cmap": ("amber19-all.xml",)}
Evaluate = Callable[[], object]


def main(
    sequence: Annotated[str, typer.Option(help="Molecule.")] = "ACE-ALA-NME",
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.")] = 15,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    molecule = Molecule.from_sequence(sequence)
    numbers = {
        "molecule": sequence,
        "unit": "configurations with forces per CPU-second, one thread",
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        **measure(molecule, DEFAULT_FORCE_FIELD, rounds),
        "others": {name: measure(molecule, files, rounds) for name, files in OTHERS.items()},
    }
    publish("force_field", numbers, ("torch", "openmm"), write=write)


def measure(molecule: Molecule, files: tuple[str, ...], rounds: int) -> dict[str, object]:
    """Return the rates of one force field in alternating rounds, and its errors."""
    system = build_system(molecule, files)
    noise = torch.randn(BATCH_SIZE, molecule.num_atoms, 3, generator=torch.manual_seed(0))
    positions = torch.from_numpy(molecule.positions_nm) + 0.003 * noise
    double = ForceField.from_system(system, TEMPERATURE_KELVIN)
    single = double.astype(torch.float32)
    evaluations = contestants(molecule, system, positions, double, single)
    rates: dict[str, list[float]] = {name: [] for name in evaluations}
    for _ in range(rounds):
        for name, evaluate in evaluations.items():
            rates[name].append(rate(evaluate))
    return {
        **{name: summary(values) for name, values in rates.items()},
        f"{FASTEST}_over_{BASELINE}": summary(
            [fast / slow for fast, slow in zip(rates[FASTEST], rates[BASELINE], strict=True)]
        ),
        "max_error_float64": errors(double, system, positions),
        "max_error_float32": errors(single, system, positions),
    }


def contestants(
    molecule: Molecule,
    system: openmm.System,
    positions: torch.Tensor,
    double: ForceField,
    single: ForceField,
) -> dict[str, Evaluate]:
    """Return what is measured: each call evaluates ``BATCH_SIZE`` configurations."""
    loop = OpenMMPotential(system, TEMPERATURE_KELVIN, platform="CPU")
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE_KELVIN, 1.0, 0.001)
    cpu = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, cpu, {"Threads": "1"})
    context.setPositions(molecule.positions_nm)
    batches = {torch.float32: positions.float(), torch.float64: positions}
    batched = {
        "eager_float64": double,
        "eager_float32": single,
        "compiled_float64": double.compiled(BATCH_SIZE),
        "compiled_float32": single.compiled(BATCH_SIZE),
    }

    def evaluation(force_field: ForceField) -> Evaluate:
        return lambda: force_field.energy_and_forces_kj_mol(batches[force_field.dtype])

    return {
        "openmm_cpu_loop": lambda: loop.energy_and_forces_kj_mol(positions),
        BASELINE: lambda: context.getIntegrator().step(BATCH_SIZE),
        **{name: evaluation(force_field) for name, force_field in batched.items()},
    }


def rate(evaluate: Evaluate) -> float:
    """Return configurations per second of CPU time over one round."""
    start = time.process_time()
    count = 0
    while (elapsed := time.process_time() - start) < ROUND_SECONDS:
        evaluate()
        count += BATCH_SIZE
    return count / elapsed


def errors(
    force_field: ForceField, system: openmm.System, positions: torch.Tensor
) -> dict[str, float]:
    """Return the largest errors against OpenMM's double precision Reference platform."""
    oracle = OpenMMPotential(system, TEMPERATURE_KELVIN)
    expected_energy, expected_forces = oracle.energy_and_forces_kj_mol(positions)
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    norm = torch.linalg.vector_norm(expected_forces, dim=(1, 2))
    difference = torch.linalg.vector_norm(forces - expected_forces, dim=(1, 2))
    return {
        "energy_kT": float((energy - expected_energy).abs().max() / force_field.kt_kj_mol),
        "relative_force": float((difference / norm).max()),
    }


if __name__ == "__main__":
    typer.run(main)
