"""States: conditions on order parameters of a molecule, and the one that a run is about."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.graph import is_in_ring
from bnce_dist.chem.molecule import Molecule, Quadruple
from bnce_dist.chem.order_parameters import OrderParameter, find_order_parameter
from bnce_dist.core.condition import BoolArray, Condition, Interval, parse_condition
from bnce_dist.core.errors import InputError

Arc = tuple[float, float]

_ROUNDING = 1e-4
"""How far an edge may lie beyond pi, which people write with few digits [rad]."""
_RING_HALF_WIDTH = math.pi / 3
"""How far from its place a torsion in a ring of five or six is taken to turn [rad]."""


@dataclass(frozen=True)
class State:
    """A part of the plane of the two torsions that the umbrellas bias, called phi and psi here.

    Args:
        condition: On names of the two.
        first: Those of its names that are of phi.
        text: As it was written.
    """

    condition: Condition
    first: frozenset[str]
    text: str

    @classmethod
    def from_interval(cls, lower: float, upper: float) -> "State":
        """Return the state that is an interval of phi, without its edges [rad]."""
        condition = Interval("phi", lower, upper)
        return cls(condition, frozenset({"phi"}), str(condition))

    @classmethod
    def from_text(cls, molecule: Molecule, text: str) -> "State":
        """Return the state that a condition on the molecule's two biased torsions says.

        Raises: InputError: it cannot be read, or it is about anything else.
        """
        condition, parameters = read_condition(molecule, text)
        phi, psi = _undirected(molecule.phi), _undirected(molecule.psi)
        for name, parameter in parameters.items():
            if not parameter.is_periodic or _undirected(parameter.atoms) not in (phi, psi):
                raise InputError(
                    "target.state",
                    expected="conditions on the two torsions that umbrellas bias, "
                    f"{_atoms(molecule, molecule.phi)} and {_atoms(molecule, molecule.psi)}",
                    got=name,
                    remedy="put it into target.torsions if its bond turns, or ask for it "
                    "afterwards with bnce states",
                )
        first = {name for name, found in parameters.items() if _undirected(found.atoms) == phi}
        return cls(condition, frozenset(first), text)

    def __str__(self) -> str:
        return self.text

    @property
    def interval(self) -> tuple[float, float] | None:
        """The state as one interval of phi that does not lead through pi, if it is one [rad]."""
        only = self.condition
        if isinstance(only, Interval) and only.name in self.first and not only.wraps:
            return only.lower, only.upper
        return None

    def contains(self, phi: NDArray[np.floating], psi: NDArray[np.floating]) -> BoolArray:
        """Return which places are in the state.

        Args:
            phi: The first torsion [rad].
            psi: The second one, of a shape that broadcasts with the first's [rad].
        """
        phi, psi = np.broadcast_arrays(phi, psi)
        names = {interval.name for interval in self.condition.intervals()}
        return self.condition.contains({n: phi if n in self.first else psi for n in names})

    def require_reachable(self, molecule: Molecule) -> None:
        """Refuse a state that the molecule cannot be in, or cannot leave.

        A ring, as of proline, keeps a torsion near its place; all others turn freely.

        Raises: InputError: it is such a state.
        """
        arcs = {torsion: _arc(molecule, torsion) for torsion in (molecule.phi, molecule.psi)}
        first, second = arcs.values()
        # Between the edges nothing changes: one place of each part is as good as all.
        phi = _places(first, self._edges(of_first=True))
        psi = _places(second, self._edges(of_first=False))
        inside = self.contains(phi[:, None], psi[None, :])
        if inside.any() and not inside.all():
            return
        rings = [
            f"{_atoms(molecule, torsion)} between {arc[0]:.1f} and {arc[1]:.1f} rad"
            for torsion, arc in arcs.items()
            if arc != (-math.pi, math.pi)
        ]
        held = f"; the ring of {molecule.name} holds {' and '.join(rings)}" if rings else ""
        raise InputError(
            "target.state (or target.state_phi_min and target.state_phi_max)",
            expected=f"a state that the molecule can be in, and can leave{held}",
            got=f"{self}, which is {'everywhere' if inside.any() else 'nowhere'}",
            remedy="move the edges, or choose another torsion (target.torsions)",
        )

    def _edges(self, *, of_first: bool) -> Iterator[float]:
        for interval in self.condition.intervals():
            if (interval.name in self.first) == of_first:
                yield from (interval.lower, interval.upper)


POSITIVE_PHI = State.from_interval(0.0, 2.0)
"""The phi > 0 basin of the published definition."""


def read_condition(molecule: Molecule, text: str) -> tuple[Condition, Mapping[str, OrderParameter]]:
    """Return a condition on order parameters of a molecule, and what its names mean.

    Raises: InputError: it cannot be read, an order parameter is unknown, or an edge is out of its
        range.
    """
    condition = parse_condition(text)
    parameters = {
        name: find_order_parameter(molecule, name)
        for name in dict.fromkeys(interval.name for interval in condition.intervals())
    }
    for interval in condition.intervals():
        _require_possible(interval, parameters[interval.name])
    return condition, parameters


def members(molecule: Molecule, text: str, positions_nm: NDArray[np.floating]) -> BoolArray:
    """Return which conformations are in a state, ``(samples,)``.

    Args:
        molecule: Of the conformations.
        text: A condition on any order parameters of it: ``"phi in [0, 2]"``.
        positions_nm: ``(samples, atoms, 3)`` [nm].

    Raises: InputError: as `read_condition`.
    """
    condition, parameters = read_condition(molecule, text)
    return condition.contains({n: p.values(positions_nm) for n, p in parameters.items()})


def _require_possible(interval: Interval, parameter: OrderParameter) -> None:
    lowest, highest = parameter.limits
    edges = (interval.lower, interval.upper)
    if any(not lowest - _ROUNDING <= edge <= highest + _ROUNDING for edge in edges):
        limits = f"{lowest:.4g} to {highest:.4g}" if math.isfinite(highest) else "0 or more"
        raise InputError(
            f"condition {interval}",
            expected=f"edges of {limits} [{parameter.unit}]",
            got=f"{interval.lower:g} and {interval.upper:g}",
            remedy=f"write them in {parameter.unit}",
        )
    if interval.wraps and not parameter.is_periodic:
        raise InputError(
            f"condition {interval}",
            expected="the lower edge first",
            got=f"{interval.lower:g} and {interval.upper:g}",
            remedy="exchange them; only intervals of torsions lead around the circle",
        )


def _arc(molecule: Molecule, torsion: Quadruple) -> Arc:
    """Return where a torsion can be, from the lowest to the highest [rad]."""
    if not is_in_ring(molecule.bonds, torsion[1:3]):
        return -math.pi, math.pi
    place = float(OrderParameter("", torsion).values(molecule.positions_nm[None])[0])
    return place - _RING_HALF_WIDTH, place + _RING_HALF_WIDTH


def _places(arc: Arc, edges: Iterable[float]) -> NDArray[np.float64]:
    """Return one angle in each of the parts into which edges cut an arc."""
    lowest, highest = arc
    turned = [lowest + (np.clip(e, -math.pi, math.pi) - lowest) % (2 * math.pi) for e in edges]
    cuts = sorted({lowest, highest, *(edge for edge in turned if edge < highest)})
    middles = np.array([(one + other) / 2 for one, other in itertools.pairwise(cuts)])
    return (middles + math.pi) % (2 * math.pi) - math.pi


def _undirected(atoms: tuple[int, ...]) -> tuple[int, ...]:
    """Return the atoms in the same order whichever end was named first."""
    return min(atoms, atoms[::-1])


def _atoms(molecule: Molecule, torsion: Quadruple) -> str:
    return "-".join(
        f"{molecule.residue_index[atom] + 1}:{molecule.atom_names[atom]}" for atom in torsion
    )
