"""What ``gpu.py`` computes with, where OpenMM is not installed: molecules, tables, trained models.

The tables are those of ``ForceField`` without the incidence matrices, which follow from the pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bnce_dist
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.bonded import Angles, Bonds, PairVectors, Torsions
from bnce_dist.chem.potentials.coordinate_functions import FourierSeries, FourierTerm, Harmonic
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.potentials.nonbonded import (
    BornParameters,
    CoulombLennardJones,
    GeneralizedBorn,
)
from bnce_dist.chem.state import POSITIVE_PHI
from bnce_dist.core.errors import InputError
from bnce_dist.data.torch_file import read_torch, write_torch
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target

FILE = Path(__file__).with_name("gpu_inputs.pt")
MODELS = Path(bnce_dist.__file__).parent / "models"
TEMPERATURES_KELVIN = {"ACE-ALA-NME": 300.0, "KS": 310.0}
SMALL, LARGE = TEMPERATURES_KELVIN
_FOLLOW_FROM_PAIRS = ("incidence", "membership")
_KINDS = ["Bonds", "Torsions", "Angles", "CoulombLennardJones", "GeneralizedBorn"]


@dataclass(frozen=True)
class Inputs:
    """What is measured on.

    Args:
        targets: Both molecules with their force fields in float64, by name.
        emulator: The shipped one, of ``SMALL``.
        density: Its learned density.
    """

    targets: Mapping[str, Target]
    emulator: Emulator
    density: LearnedDensity


def make() -> None:
    """Write the file anew; needs OpenMM."""
    molecules = {name: Molecule.from_sequence(name) for name in TEMPERATURES_KELVIN}
    content = {
        name: {
            "molecule": molecule.to_state(),
            "temperature_kelvin": TEMPERATURES_KELVIN[name],
            **tables_of(ForceField.from_system(build_system(molecule), TEMPERATURES_KELVIN[name])),
        }
        for name, molecule in molecules.items()
    }
    write_torch(FILE, content)


def load() -> Inputs:
    """Read the file and the shipped model; needs no OpenMM.

    Raises: InputError: one is absent or torn.
    """
    content = read_torch(
        FILE,
        "inputs",
        expected="molecules and tables",
        remedy="write it by `python benchmarks/gpu.py --make-inputs`",
    )
    targets = {
        name: Target(Molecule.from_state(state["molecule"]), force_field_of(state), POSITIVE_PHI)
        for name, state in content.items()
    }
    models = read_torch(
        MODELS / f"{SMALL.lower()}.pt",
        "model",
        expected="the shipped model",
        remedy="check out the repository with its models",
    )
    emulator = Emulator.from_state(models["emulator"])
    return Inputs(targets, emulator, LearnedDensity.from_state(models["energy"]))


def tables_of(force_field: ForceField) -> dict[str, Any]:
    """Return plain types and tensors from which `force_field_of` rebuilds a force field.

    Raises: InputError: it has other terms than amber14 with OBC1 has.
    """
    terms = [*force_field.bonded, *force_field.pairwise]
    kinds = [type(term).__name__ for term in terms]
    if kinds != _KINDS:
        raise InputError("terms", expected=_KINDS, got=kinds, remedy="use the default force field")
    born = force_field.pairwise[1]
    return {
        "tables": {
            name: table.clone()
            for name, table in force_field.state_dict().items()
            if not name.endswith(_FOLLOW_FROM_PAIRS)
        },
        "tanh_coefficients": born.tanh_coefficients,
        "fills_engulfed": born.fills_engulfed,
    }


def force_field_of(state: Mapping[str, Any]) -> ForceField:
    """Return the force field, in float64, that `tables_of` described."""
    tables = state["tables"]
    num_atoms = len(state["molecule"]["elements"])
    vectors = PairVectors(_pairs(tables, "pair_vectors"), num_atoms)
    force_field = ForceField(
        _bonded(tables, num_atoms),
        vectors,
        _pairwise(state, vectors, num_atoms),
        num_atoms=num_atoms,
        temperature_kelvin=state["temperature_kelvin"],
    )
    # Assigned, since the zeros that the terms were made with share their memory.
    missing, unknown = force_field.load_state_dict(tables, strict=False, assign=True)
    wrong = [*unknown, *(name for name in missing if not name.endswith(_FOLLOW_FROM_PAIRS))]
    if wrong:
        raise InputError(
            "tables", expected="those of its terms", got=wrong, remedy="make the file anew"
        )
    return force_field.double()


def _pairs(tables: Mapping[str, Tensor], vectors: str) -> list[tuple[int, int]]:
    ends = torch.stack([tables[f"{vectors}.first"], tables[f"{vectors}.second"]], dim=1)
    return [(i, j) for i, j in ends.tolist()]


def _bonded(tables: Mapping[str, Tensor], num_atoms: int) -> list[nn.Module]:
    """Return the bonded terms with the right atoms and all parameters zero."""
    bonds = _pairs(tables, "bonded.0.vectors")
    vectors = _pairs(tables, "bonded.1.vectors")
    arms = _pairs(tables, "bonded.2.arms")
    num_angles, num_torsions = len(arms) // 2, len(vectors) // 3
    angles = [(arms[n][0], arms[n][1], arms[n + num_angles][0]) for n in range(num_angles)]
    quadruples = [
        (i, j, k, end)
        for (i, j), (end, k) in zip(
            vectors[:num_torsions], vectors[num_torsions : 2 * num_torsions], strict=True
        )
    ]
    order = len(tables["bonded.1.energy.cosine_amplitude"])
    # The highest term sizes the tables.
    series = FourierSeries([FourierTerm(quadruples[0], order, 0.0, 0.0)], quadruples)
    return [
        Bonds(bonds, _spring(len(bonds)), num_atoms=num_atoms),
        Torsions(quadruples, series, num_atoms=num_atoms),
        Angles(angles, _spring(num_angles), num_atoms=num_atoms),
    ]


def _spring(num_terms: int) -> Harmonic:
    zeros = torch.zeros(num_terms, dtype=torch.float64)
    return Harmonic(zeros, zeros)


def _pairwise(state: Mapping[str, Any], vectors: PairVectors, num_atoms: int) -> list[nn.Module]:
    """Return the terms of pairs, all parameters zero."""
    of_pairs = torch.zeros(len(vectors.first), dtype=torch.float64)
    of_atoms = torch.zeros(num_atoms, dtype=torch.float64)
    born = BornParameters(
        charge=of_atoms,
        radius_nm=of_atoms,
        scale=of_atoms,
        tanh_coefficients=tuple(state["tanh_coefficients"]),
        coulomb_constant=0.0,
        surface_tension=0.0,
        fills_engulfed=state["fills_engulfed"],
    )
    return [
        CoulombLennardJones(of_pairs, of_pairs, of_pairs),
        GeneralizedBorn(born, vectors.first, vectors.second),
    ]
