"""Reading OpenMM's custom forces: expressions, their parameters and tabulated functions."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import openmm
import torch
from openmm import unit
from torch import Tensor

from bnce_dist.chem.potentials.bonded import Angles, Torsions
from bnce_dist.chem.potentials.coordinate_functions import ExpressionOf, OfTorsionAngle
from bnce_dist.chem.potentials.custom_born import BornExpressions, CustomBorn
from bnce_dist.chem.potentials.expressions.grammar import parse
from bnce_dist.chem.potentials.expressions.tree import ZERO, Expression, number
from bnce_dist.chem.potentials.nonbonded import FunctionOfDistance, SomePairs, pair_parameters
from bnce_dist.core.errors import InputError

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class DiscreteTable:
    """A function of whole numbers.

    Args:
        name: What it is called in expressions.
        values: One axis per operand.
    """

    name: str
    values: Tensor

    def __call__(self, *indices: Tensor) -> Tensor:
        """Return the values at whole numbers, which are rounded and broadcast.

        Raises: InputError: there is no value there.
        """
        whole = torch.broadcast_tensors(*(index.round().long() for index in indices))
        for index, size in zip(whole, self.values.shape, strict=True):
            if ((index < 0) | (index >= size)).any():
                raise InputError(
                    f"tabulated function {self.name}",
                    expected=f"operands from 0 to {size - 1}",
                    got=f"from {index.min()} to {index.max()}",
                    remedy="give it a larger table",
                )
        return self.values[tuple(whole)]


def custom_bonds(force: openmm.CustomBondForce, pairs: Pairs) -> FunctionOfDistance:
    """Return the term of functions of distances between bonded atoms."""
    names = [force.getPerBondParameterName(i) for i in range(force.getNumPerBondParameters())]
    bonds = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    parameters = _by_name(names, (values for _, _, values in bonds))
    energy = ExpressionOf("r", _expression(force), _as_rows(parameters), {})
    return FunctionOfDistance(energy, _some_pairs([(i, j) for i, j, _ in bonds], pairs))


def custom_angles(force: openmm.CustomAngleForce, num_atoms: int) -> Angles:
    """Return the term of functions of angles."""
    names = [force.getPerAngleParameterName(i) for i in range(force.getNumPerAngleParameters())]
    angles = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
    parameters = _by_name(names, (values for *_, values in angles))
    energy = ExpressionOf("theta", _expression(force), _as_rows(parameters), {})
    return Angles([(i, j, k) for i, j, k, _ in angles], energy, num_atoms=num_atoms)


def custom_torsions(force: openmm.CustomTorsionForce, num_atoms: int) -> Torsions:
    """Return the term of functions of torsions."""
    count = force.getNumPerTorsionParameters()
    names = [force.getPerTorsionParameterName(i) for i in range(count)]
    torsions = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    parameters = _by_name(names, (values for *_, values in torsions))
    energy = ExpressionOf("theta", _expression(force), _as_rows(parameters), {})
    quadruples = [(i, j, k, end) for i, j, k, end, _ in torsions]
    return Torsions(quadruples, OfTorsionAngle(energy), num_atoms=num_atoms)


def custom_nonbonded(force: openmm.CustomNonbondedForce, pairs: Pairs) -> FunctionOfDistance:
    """Return the term of functions of distances between all atoms but those excluded.

    Raises: InputError: it has interaction groups, computed values or tables of another kind.
    """
    if force.getNumInteractionGroups() or force.getNumComputedValues():
        raise InputError(
            "force field",
            expected="a CustomNonbondedForce of all pairs and parameters alone",
            got="one with interaction groups or computed values",
            remedy="write it without them",
        )
    tables = _tables(force)
    arity = {name: table.values.ndim for name, table in tables.items()}
    interacting = _without_exclusions(force, pairs)
    ends = torch.tensor(interacting, dtype=torch.long).reshape(-1, 2).T
    parameters = pair_parameters(_particle_parameters(force), ends)
    energy = ExpressionOf("r", _expression(force, arity), parameters, tables)
    return FunctionOfDistance(energy, _some_pairs(interacting, pairs))


def custom_born(force: openmm.CustomGBForce, pairs: Pairs) -> CustomBorn:
    """Return the term of an implicit solvent.

    Raises: InputError: not the first of its values alone is a sum over pairs, or it has tables
        of another kind.
    """
    of_pairs = {force.ParticlePair: True, force.ParticlePairNoExclusions: False}
    tables = _tables(force)
    arity = {name: table.values.ndim for name, table in tables.items()}
    read = functools.partial(parse, tables=arity)
    computed = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
    kinds = [kind in of_pairs for _, _, kind in computed]
    if kinds[:1] != [True] or any(kinds[1:]):
        raise InputError(
            "force field",
            expected="a CustomGBForce whose first computed value, and no other, is one of pairs",
            got=f"{sum(kinds)} of pairs among {len(kinds)}",
            remedy="write the values so; OpenMM evaluates no others either",
        )
    globals_ = _globals(force)
    (name, text, kind), *others = computed
    values: dict[str, Expression] = {}
    for other, formula, _ in others:
        values[other] = read(formula, definitions={**globals_, **values})
    atom_energy: Expression = ZERO
    pair_energy: dict[bool, Expression] = {}
    for formula, its_kind in map(force.getEnergyTermParameters, range(force.getNumEnergyTerms())):
        if its_kind in of_pairs:
            excludes, energy = of_pairs[its_kind], read(formula, definitions=globals_)
            pair_energy[excludes] = pair_energy.get(excludes, ZERO) + energy
        else:
            atom_energy = atom_energy + read(formula, definitions={**globals_, **values})
    expressions = BornExpressions(
        descreening_name=name,
        descreening=read(text, definitions=globals_),
        values=values,
        atom_energy=atom_energy,
        pair_energies=list(pair_energy.values()),
    )
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    without = _some_pairs(_without_exclusions(force, pairs), pairs)
    which = {True: without, False: _some_pairs(pairs, pairs)}
    return CustomBorn(
        expressions,
        _particle_parameters(force),
        tables,
        num_atoms=force.getNumParticles(),
        first=first,
        second=second,
        descreening_pairs=which[of_pairs[kind]],
        energy_pairs=[which[excludes] for excludes in pair_energy],
    )


def columns(rows: Iterable[Sequence[Any]], count: int | None = None) -> list[Tensor]:
    """Return one float64 vector per column, in OpenMM's units: nm, rad, kJ/mol, e.

    Args:
        rows: The rows.
        count: Number of columns, known even where there are no rows.
    """
    values = [[entry._value if unit.is_quantity(entry) else entry for entry in row] for row in rows]
    table = torch.tensor(values, dtype=torch.float64)
    return list(table.T if count is None else table.reshape(-1, count).T)


def _globals(force: Any) -> dict[str, Expression]:
    return {
        force.getGlobalParameterName(i): number(force.getGlobalParameterDefaultValue(i))
        for i in range(force.getNumGlobalParameters())
    }


def _expression(force: Any, tables: dict[str, int] | None = None) -> Expression:
    return parse(force.getEnergyFunction(), definitions=_globals(force), tables=tables)


def _by_name(names: Sequence[str], rows: Iterable[Sequence[float]]) -> dict[str, Tensor]:
    """Return a vector per parameter."""
    table = list(rows)
    if not names:
        return {}
    return dict(zip(names, columns(table, len(names)), strict=True))


def _as_rows(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[:, None] for name, values in parameters.items()}


def _particle_parameters(force: Any) -> dict[str, Tensor]:
    count = force.getNumPerParticleParameters()
    names = [force.getPerParticleParameterName(i) for i in range(count)]
    particles = (force.getParticleParameters(i) for i in range(force.getNumParticles()))
    return _by_name(names, particles)


def _tables(force: Any) -> dict[str, DiscreteTable]:
    """Return the tabulated functions by name.

    Raises: InputError: one of them is not discrete.
    """
    tables = {}
    for index in range(force.getNumTabulatedFunctions()):
        name, function = force.getTabulatedFunctionName(index), force.getTabulatedFunction(index)
        kind = type(function).__name__
        if not kind.startswith("Discrete"):
            raise InputError(
                "force field",
                expected="tabulated functions of whole numbers (Discrete1DFunction and so on)",
                got=f"the {kind} {name}",
                remedy="write it as an expression",
            )
        given = function.getFunctionParameters()
        *sizes, values = (len(given), given) if kind == "Discrete1DFunction" else given
        # OpenMM's first operand varies fastest.
        table = torch.tensor(values, dtype=torch.float64).reshape(sizes[::-1])
        tables[name] = DiscreteTable(name, table.permute(*reversed(range(table.ndim))))
    return tables


def _some_pairs(some: Pairs, pairs: Pairs) -> SomePairs:
    row = {pair: index for index, pair in enumerate(pairs)}
    rows = [row[min(pair), max(pair)] for pair in some]
    return SomePairs(torch.tensor(rows, dtype=torch.long), len(pairs))


def _without_exclusions(force: Any, pairs: Pairs) -> Pairs:
    excluded = [force.getExclusionParticles(i) for i in range(force.getNumExclusions())]
    left_out = {(min(pair), max(pair)) for pair in excluded}
    return [pair for pair in pairs if pair not in left_out]
