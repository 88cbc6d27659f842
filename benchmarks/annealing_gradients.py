"""Gradients per CPU-second of the two densities that annealing goes between.

The target's log density in model space is differentiated by autograd from one end to the other,
by autograd through ``decode`` alone with analytic forces (a prototype's way), and without any
graph; the learned density always by autograd. Everything runs on one thread of the same machine
in alternating rounds; every rate is per second of this process's CPU time.

    OMP_NUM_THREADS=1 python benchmarks/annealing_gradients.py --write
"""

import copy
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from record import publish, summary
from torch import Tensor

from bnce_dist.chem.boltzmann_density import BoltzmannDensity
from bnce_dist.chem.coordinates import Coordinates, WhitenedInternal, ZMatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.core.bridge import LogDensity
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import EnergyConfig, build_energy_model
from bnce_dist.generator.learned_density import LearnedDensity

BATCH_SIZE = 1000
TEMPERATURES_KELVIN = {"ACE-ALA-NME": 300.0, "KS": 310.0}
ROUND_SECONDS = 0.5
THERMAL_NOISE_NM = 0.004


def main(
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.")] = 11,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    numbers = {
        "unit": "gradients of both densities per CPU-second, one thread, float32",
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        **{sequence: of_molecule(sequence, rounds) for sequence in TEMPERATURES_KELVIN},
    }
    publish("annealing_gradients", numbers, ("torch",), write=write)


def of_molecule(sequence: str, rounds: int) -> dict[str, object]:
    """Return the rates of one molecule, with an energy model of the default size."""
    molecule = Molecule.from_sequence(sequence)
    force_field = ForceField.from_system(build_system(molecule), TEMPERATURES_KELVIN[sequence])
    positions = torch.from_numpy(molecule.positions_nm) + THERMAL_NOISE_NM * torch.randn(
        BATCH_SIZE, molecule.num_atoms, 3, generator=torch.manual_seed(0)
    )
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, positions)
    z = coordinates.encode(positions)[0]
    model = build_energy_model(
        EnergyConfig(), Space(coordinates.num_euclidean, coordinates.num_circular)
    )
    learned = LearnedDensity(molecule.identity, coordinates, model).log_density_z_and_gradient
    single = force_field.astype(torch.float32)
    analytic = copy.deepcopy(coordinates).float()
    by_autograd = AutogradDecode(analytic)
    targets: dict[str, LogDensity] = {
        "autograd": lambda z: plain_autograd(analytic, single, z),
        "autograd_decode_analytic_forces": BoltzmannDensity(molecule, by_autograd, single),
        "analytic": BoltzmannDensity(molecule, analytic, single),
        "analytic_compiled_forces": BoltzmannDensity(molecule, analytic, single.compiled()),
    }
    points = z.float()
    rates: dict[str, list[float]] = {"learned_alone": [], **{name: [] for name in targets}}
    for _ in range(rounds):
        rates["learned_alone"].append(rate(lambda: learned(points)))
        for name, target in targets.items():
            rates[name].append(rate(lambda target=target: (target(points), learned(points))))
    expected = plain_autograd(coordinates, force_field, z)[1]
    fastest = rates["analytic_compiled_forces"]
    return {
        "dim": coordinates.dim,
        **{name: summary(values) for name, values in rates.items()},
        **{
            f"speedup_over_{name}": summary(
                [fast / slow for fast, slow in zip(fastest, rates[name], strict=True)]
            )
            for name in ("autograd", "autograd_decode_analytic_forces")
        },
        "max_relative_error": {
            "float32": error(targets["analytic_compiled_forces"](points)[1], expected),
            "float64": error(BoltzmannDensity(molecule, coordinates, force_field)(z)[1], expected),
        },
    }


class AutogradDecode(torch.nn.Module):
    """Coordinates whose ``pull_back`` is autograd's."""

    def __init__(self, coordinates: WhitenedInternal) -> None:
        super().__init__()
        self.decode, self.validity = coordinates.decode, coordinates.validity

    def pull_back(self, z: Tensor, positions_nm: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient that autograd finds."""
        return Coordinates.pull_back(self, z, positions_nm, gradient)  # type: ignore[arg-type]


def plain_autograd(
    coordinates: WhitenedInternal, force_field: ForceField, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the target's log density and its gradient with nothing by hand."""
    z = z.detach().requires_grad_()
    positions, log_det = coordinates.decode(z)
    value = log_det - force_field.reduced_potential(positions)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def rate(evaluate: Callable[[], object]) -> float:
    """Return gradients per second of CPU time over one round."""
    start = time.process_time()
    count = 0
    while (elapsed := time.process_time() - start) < ROUND_SECONDS:
        evaluate()
        count += BATCH_SIZE
    return count / elapsed


def error(gradient: Tensor, expected: Tensor) -> float:
    """Return the largest error of a gradient relative to its length."""
    return float(((gradient - expected).norm(dim=1) / expected.norm(dim=1)).max())


if __name__ == "__main__":
    typer.run(main)
