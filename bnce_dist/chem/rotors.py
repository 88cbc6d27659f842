"""Which bonds of a molecule turn slowly."""

from collections.abc import Iterable, Sequence

Quadruple = tuple[int, int, int, int]


def find_rotors(
    elements: Sequence[str], bonds: Iterable[tuple[int, int]], rigid: Iterable[Quadruple]
) -> tuple[Quadruple, ...]:
    """Return one torsion for every bond that heavy atoms can turn about, in order of atoms.

    Methyl, ammonium and hydroxyl groups, whose wells are equal or close, are not counted.

    Args:
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms.
        rigid: Torsions about bonds to leave out, such as peptide bonds.
    """
    neighbours = _heavy_neighbours(elements, bonds)
    excluded = {frozenset(quadruple[1:3]) for quadruple in rigid}
    rotors = []
    for b in sorted(neighbours):
        for c in sorted(neighbours[b]):
            before = [atom for atom in neighbours[b] if atom != c]
            after = [atom for atom in neighbours[c] if atom != b]
            turns = before and after and not _is_ring_bond(neighbours, b, c)
            if b < c and turns and frozenset((b, c)) not in excluded:
                rotors.append((min(before), b, c, min(after)))
    return tuple(rotors)


def find_ring_atoms(elements: Sequence[str], bonds: Iterable[tuple[int, int]]) -> set[int]:
    """Return the atoms that are part of a ring.

    Args:
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms.
    """
    neighbours = _heavy_neighbours(elements, bonds)
    return {b for b, near in neighbours.items() for c in near if _is_ring_bond(neighbours, b, c)}


def _heavy_neighbours(
    elements: Sequence[str], bonds: Iterable[tuple[int, int]]
) -> dict[int, list[int]]:
    neighbours: dict[int, list[int]] = {}
    for i, j in sorted(bonds):
        if "H" not in (elements[i], elements[j]):
            neighbours.setdefault(i, []).append(j)
            neighbours.setdefault(j, []).append(i)
    return neighbours


def _is_ring_bond(neighbours: dict[int, list[int]], b: int, c: int) -> bool:
    """Return whether ``c`` can be reached from ``b`` without their bond."""
    found, frontier = {b}, [b]
    while frontier:
        atom = frontier.pop()
        reached = {n for n in neighbours[atom] if {atom, n} != {b, c}} - found
        found |= reached
        frontier.extend(reached)
    return c in found
