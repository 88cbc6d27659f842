"""Implicit solvent by expressions: any CustomGBForce of OpenMM.

Every atom has a sum over its neighbours, the *descreening*, and values that follow from it, such
as its Born radius. Energies depend on these values, of single atoms or of pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnce_dist.chem.potentials.expressions.program import Program, Table, depends_on
from bnce_dist.chem.potentials.expressions.tree import Expression, derivative, variable
from bnce_dist.chem.potentials.nonbonded import SomePairs, pair_parameters


@dataclass(frozen=True)
class BornExpressions:
    """The expressions of a CustomGBForce.

    Expressions of pairs depend on the distance ``r`` and on parameters and values of both atoms,
    whose names end in 1 and 2.

    Args:
        descreening_name: What the sum over neighbours is called.
        descreening: What the second atom of a pair adds to the sum of the first.
        values: Further values by name, of the descreening and an atom's parameters.
        atom_energy: Energy of each atom, of the same [kJ/mol].
        pair_energies: Energies of pairs [kJ/mol].
    """

    descreening_name: str
    descreening: Expression
    values: Mapping[str, Expression]
    atom_energy: Expression
    pair_energies: Sequence[Expression]


class PairEnergy(nn.Module):
    """An energy of pairs that depends on their distance and on values of both atoms.

    Args:
        energy: The expression.
        value_names: Names of the values, without 1 and 2.
        parameters: Parameters of the pairs, ``(terms, 1)`` each.
        tables: Tabulated functions.
        pairs: Which pairs.
    """

    def __init__(
        self,
        energy: Expression,
        value_names: Sequence[str],
        parameters: Mapping[str, Tensor],
        tables: Mapping[str, Table],
        pairs: SomePairs,
    ) -> None:
        super().__init__()
        inputs = ["r", *(name + atom for name in value_names for atom in "12")]
        results = [energy, *(derivative(energy, name) for name in inputs)]
        self.program = Program(results, inputs, parameters, tables)
        self.pairs = pairs

    def forward(self, distance: Tensor, *values: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return energy, derivative by the distances and derivatives by the values.

        Args:
            distance: Distances of all pairs, ``(pairs, batch)`` [nm].
            values: Each value of first and then of second atoms, ``(pairs, batch)``.
        """
        inputs = [self.pairs(of_pairs) for of_pairs in (distance, *values)]
        energy, *slopes = (result.expand_as(inputs[0]) for result in self.program(*inputs))
        by_distance, *by_values = (self.pairs.transpose(slope) for slope in slopes)
        return energy.sum(0), by_distance, by_values


class CustomBorn(nn.Module):
    """Implicit solvent by expressions.

    Args:
        expressions: The expressions.
        parameters: Parameters of the atoms by name, ``(atoms,)`` each.
        tables: Tabulated functions.
        num_atoms: Number of atoms.
        first: First atom of every pair, ``(pairs,)``.
        second: Second atom of every pair, ``(pairs,)``.
        descreening_pairs: Which pairs descreen each other.
        energy_pairs: Which pairs each of the pair energies is of.

    Raises: InputError: an expression has an unknown variable.
    """

    ends: Tensor
    membership: Tensor

    def __init__(
        self,
        expressions: BornExpressions,
        parameters: Mapping[str, Tensor],
        tables: Mapping[str, Table],
        *,
        num_atoms: int,
        first: Tensor,
        second: Tensor,
        descreening_pairs: SomePairs,
        energy_pairs: Sequence[SomePairs],
    ) -> None:
        super().__init__()
        name = expressions.descreening_name
        ends = torch.stack([first, second])
        own = pair_parameters(parameters, ends[:, descreening_pairs.rows])
        other = pair_parameters(parameters, ends.flip(0)[:, descreening_pairs.rows])
        self.descreening_pairs = descreening_pairs
        self.descreening = Program(
            [expressions.descreening, derivative(expressions.descreening, "r")],
            ["r"],
            {key: torch.stack([own[key], other[key]]) for key in own},
            tables,
        )
        named = {name: variable(name), **expressions.values}
        names = [name for name in named if _enters(name, expressions.pair_energies)]
        of_atoms = [expressions.atom_energy, *(named[name] for name in names)]
        self.atoms = Program(
            [result for value in of_atoms for result in (value, derivative(value, name))],
            [name],
            {key: values[:, None] for key, values in parameters.items()},
            tables,
        )
        self.pair_energies = nn.ModuleList(
            PairEnergy(
                energy, names, pair_parameters(parameters, ends[:, pairs.rows]), tables, pairs
            )
            for energy, pairs in zip(expressions.pair_energies, energy_pairs, strict=True)
        )
        membership = torch.zeros(num_atoms, 2 * len(first))
        membership[ends.flatten(), torch.arange(2 * len(first))] = 1
        self.register_buffer("ends", ends.flatten())
        self.register_buffer("membership", membership.double())

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative by the squared distances."""
        distance = squared.sqrt()
        near = self.descreening_pairs(distance)
        added, added_slope = (result.expand(2, *near.shape) for result in self.descreening(near))
        descreening = self._sum_over_pairs(map(self.descreening_pairs.transpose, added))
        atom_energy, by_descreening, *values = (
            result.expand_as(descreening) for result in self.atoms(descreening)
        )
        energy, by_distance = atom_energy.sum(0), torch.zeros_like(distance)
        ends = [end for value in values[::2] for end in self._ends(value)]
        for pair_energy in self.pair_energies:
            its_energy, its_slope, by_ends = pair_energy(distance, *ends)
            energy, by_distance = energy + its_energy, by_distance + its_slope
            for value_slope, firsts, seconds in zip(
                values[1::2], by_ends[::2], by_ends[1::2], strict=True
            ):
                by_value = self._sum_over_pairs([firsts, seconds])
                by_descreening = by_descreening + by_value * value_slope
        chain = torch.stack([self.descreening_pairs(end) for end in self._ends(by_descreening)])
        by_near = (chain * added_slope).sum(0)
        by_distance = by_distance + self.descreening_pairs.transpose(by_near)
        return energy, 0.5 * by_distance / distance

    def _ends(self, of_atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Return what first and second atoms of the pairs have, ``(pairs, batch)`` each."""
        first, second = of_atoms.index_select(0, self.ends).chunk(2)
        return first, second

    def _sum_over_pairs(self, ends: Iterable[Tensor]) -> Tensor:
        """Return sums ``(atoms, batch)`` of what first and second atoms are given."""
        return self.membership @ torch.cat(list(ends))


def _enters(name: str, energies: Sequence[Expression]) -> bool:
    depends = depends_on([name + "1", name + "2"])
    return any(map(depends, energies))
