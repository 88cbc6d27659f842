"""From a bond graph to a Z-matrix: which atoms place which, and which torsions are free.

Every atom is placed by a bond, an angle and a torsion to atoms placed before it. The tree of
bonds grows from the middle of the backbone, so that it is shallow and changes stay local. Of the
atoms attached to one end of a bond only the first is given by the torsion about that bond; its
siblings are given by their torsion *relative to it*. So each rotatable bond has exactly one free
torsion (for a peptide's backbone phi or psi itself), and all else is stiff: bonds, angles, omega,
planes and chirality. The chirality of a centre is the sign of its siblings' relative torsion:
mirroring a molecule flips the sign of every torsion and leaves bonds and angles as they are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from bnce_dist.chem.graph import planar_atoms
from bnce_dist.core.errors import InputError

# Bonds in a ring up to this size do not rotate; those of a macrocycle do.
MAX_RING_SIZE = 7
ABSENT = -1

Neighbours = list[list[int]]


@dataclass(frozen=True)
class ZMatrix:
    """The atoms by which each atom is placed.

    Attributes:
        rows: ``(atom, bonded, angle, torsion)`` in order of placement: the atom's distance to
            ``bonded``, its angle with ``bonded`` and ``angle``, its dihedral with all three. The
            first three rows lack 3, 2 and 1 of these and hold ``ABSENT`` there.
        circular: For each torsion (``rows[3:]``) whether it takes all values of the circle.
    """

    rows: tuple[tuple[int, int, int, int], ...]
    circular: tuple[bool, ...]

    @classmethod
    def from_graph(
        cls,
        elements: Sequence[str],
        bonds: Sequence[tuple[int, int]],
        centre: int | None = None,
    ) -> Self:
        """Build the Z-matrix of a molecule.

        A torsion is circular when its bond can rotate, which the graph alone decides: a bond in
        a small ring cannot, nor one between two planar atoms (the amide bond). The data are not
        asked, so that the layout of ``z`` is a function of the molecule; that the other torsions
        really are narrow is checked when coordinates are fitted.

        Args:
            elements: Element symbols, one per atom.
            bonds: Pairs of atom indices.
            centre: Where the tree begins, an atom of two bonds or more whose neighbours then follow
                by their indices, not by what they carry; by default the middle of the backbone.

        Raises: InputError: fewer than three atoms, a bond to an atom that does not exist, or a
            molecule in several pieces.
        """
        neighbours = _neighbours(len(elements), bonds)
        backbone = _backbone(elements, neighbours)
        candidates = backbone or {atom for atom, near in enumerate(neighbours) if len(near) > 1}
        middle = min(sorted(candidates), key=lambda atom: max(_distances(neighbours, atom)))
        tree = (
            _Tree(neighbours, middle, preferred=backbone)
            if centre is None
            else _Tree(neighbours, centre, preferred=backbone, ranked_centre=False)
        )
        rows = tree.rows()
        planar = planar_atoms(elements, neighbours)
        # A torsion atom bonded to `bonded` is a sibling: the torsion is relative, hence narrow.
        circular = tuple(
            torsion not in neighbours[bonded] and _is_rotatable(neighbours, planar, bonded, angle)
            for _, bonded, angle, torsion in rows[3:]
        )
        return cls(rows=rows, circular=circular)

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.rows)

    @property
    def circular_torsions(self) -> tuple[tuple[int, int, int, int], ...]:
        """Atom quadruples of the circular torsions, in the order of the circular block."""
        pairs = zip(self.rows[3:], self.circular, strict=True)
        return tuple(row for row, circular in pairs if circular)

    @property
    def stiff(self) -> tuple[tuple[int, ...], ...]:
        """Atoms of the stiff coordinates: all bonds, all angles, then the narrow torsions."""
        bonds = (row[:2] for row in self.rows[1:])
        angles = (row[:3] for row in self.rows[2:])
        pairs = zip(self.rows[3:], self.circular, strict=True)
        return (*bonds, *angles, *(row for row, circular in pairs if not circular))

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """How many consecutive rows, after the first three, can be placed at once."""
        level = {row[0]: 0 for row in self.rows[:3]}
        sizes: list[int] = []
        for atom, *references in self.rows[3:]:
            level[atom] = 1 + max(level[reference] for reference in references)
            if level[atom] > len(sizes):
                sizes.append(0)
            sizes[-1] += 1
        return tuple(sizes)


class _Tree:
    """Spanning tree of the bond graph, grown breadth-first from ``centre``.

    Children are ranked: preferred atoms first, then those that carry more atoms; the latter does
    not count at the centre if it is not to be ranked.
    """

    def __init__(
        self,
        neighbours: Neighbours,
        centre: int,
        preferred: Collection[int],
        *,
        ranked_centre: bool = True,
    ) -> None:
        self.centre = centre
        self.parent = {centre: ABSENT}
        order = [centre]
        for atom in order:
            for child in neighbours[atom]:
                if child not in self.parent:
                    self.parent[child] = atom
                    order.append(child)
        size = dict.fromkeys(order, 1)
        for atom in reversed(order[1:]):
            size[self.parent[atom]] += size[atom]
        self.children: dict[int, list[int]] = {atom: [] for atom in order}
        for atom in order[1:]:
            self.children[self.parent[atom]].append(atom)
        for siblings in self.children.values():
            siblings.sort(key=lambda atom: (atom not in preferred, -size[atom], atom))
        if not ranked_centre:
            self.children[centre].sort(key=lambda atom: (atom not in preferred, atom))
        self.order = order
        self.first, self.second = self.children[centre][:2]

    def rows(self) -> tuple[tuple[int, int, int, int], ...]:
        """Return the rows of the Z-matrix, sorted by the level at which they can be placed."""
        level = {self.first: 0, self.centre: 0, self.second: 0}
        placed = []
        for parent in self.order:
            for atom in self.children[parent]:
                if atom not in level:
                    references = self._references(atom)
                    level[atom] = 1 + max(level[reference] for reference in references)
                    placed.append((atom, *references))
        placed.sort(key=lambda row: (level[row[0]], row[0]))
        return (
            (self.first, ABSENT, ABSENT, ABSENT),
            (self.centre, self.first, ABSENT, ABSENT),
            (self.second, self.centre, self.first, ABSENT),
            *placed,
        )

    def _references(self, atom: int) -> tuple[int, int, int]:
        bonded = self.parent[atom]
        if bonded == self.centre:
            return self.centre, self.first, self.second
        angle, leader = self.parent[bonded], self.children[bonded][0]
        if atom != leader:
            return bonded, angle, leader
        if angle != self.centre:
            return bonded, angle, self.parent[angle]
        return bonded, angle, self.second if bonded == self.first else self.first


def _neighbours(num_atoms: int, bonds: Sequence[tuple[int, int]]) -> Neighbours:
    """Return the bonded atoms of each atom, sorted."""
    if num_atoms < 3:
        raise InputError(
            "number of atoms",
            expected="at least 3",
            got=num_atoms,
            remedy="use CenteredCartesian for smaller molecules",
        )
    found: list[set[int]] = [set() for _ in range(num_atoms)]
    for first, second in bonds:
        if first == second or not (0 <= first < num_atoms and 0 <= second < num_atoms):
            raise InputError(
                "bonds",
                expected=f"pairs of two different atoms below {num_atoms}",
                got=(first, second),
                remedy="index atoms from 0 in the order of the elements",
            )
        found[first].add(second)
        found[second].add(first)
    neighbours = [sorted(near) for near in found]
    distances = _distances(neighbours, 0)
    if ABSENT in distances:
        raise InputError(
            "bonds",
            expected="one connected molecule",
            got=f"atom {distances.index(ABSENT)} not connected to atom 0",
            remedy="add the missing bond, or treat the pieces apart",
        )
    return neighbours


def _distances(
    neighbours: Neighbours, source: int, without: tuple[int, int] | None = None
) -> list[int]:
    """Return the number of bonds from ``source`` to each atom, leaving one bond out if asked."""
    distances = [ABSENT] * len(neighbours)
    distances[source] = 0
    queue = [source]
    for atom in queue:
        for near in neighbours[atom]:
            if distances[near] == ABSENT and {atom, near} != set(without or ()):
                distances[near] = distances[atom] + 1
                queue.append(near)
    return distances


def _backbone(elements: Sequence[str], neighbours: Neighbours) -> set[int]:
    """Return N, CA and C of every alpha-amino acid: a nitrogen and a carbonyl on one carbon."""

    def is_carbonyl(atom: int) -> bool:
        oxygens = (near for near in neighbours[atom] if elements[near] == "O")
        return elements[atom] == "C" and any(len(neighbours[oxygen]) == 1 for oxygen in oxygens)

    backbone: set[int] = set()
    for atom, near in enumerate(neighbours):
        nitrogens = [other for other in near if elements[other] == "N"]
        carbonyls = [other for other in near if is_carbonyl(other)]
        if elements[atom] == "C" and len(near) == 4 and nitrogens and carbonyls:
            backbone.update({atom, nitrogens[0], carbonyls[0]})
    return backbone


def _is_rotatable(neighbours: Neighbours, planar: set[int], first: int, second: int) -> bool:
    detour = _distances(neighbours, first, without=(first, second))[second]
    in_small_ring = detour != ABSENT and detour < MAX_RING_SIZE
    return not in_small_ring and not {first, second} <= planar
