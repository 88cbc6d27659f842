"""Which bonds of a molecule turn slowly."""

from collections.abc import Iterable, Sequence

Quadruple = tuple[int, int, int, int]


def find_rotatable_torsions(
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
    torsions = []
    for b in sorted(neighbours):
        for c in sorted(neighbours[b]):
            before = [atom for atom in neighbours[b] if atom != c]
            after = [atom for atom in neighbours[c] if atom != b]
            turns = before and after and not _is_ring_bond(neighbours, b, c)
            if b < c and turns and frozenset((b, c)) not in excluded:
                torsions.append((min(before), b, c, min(after)))
    return tuple(torsions)


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


def formal_charges(elements: Sequence[str], bonds: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Return every atom's formal charge, shared equally by atoms that resonance makes alike.

    Peptides have four charged groups: ammonium, carboxylate, guanidinium and imidazolium.

    Args:
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms, hydrogens included.

    Returns: ``(atoms,)`` [elementary charges]; the sum is the molecule's charge.
    """
    neighbours: list[list[int]] = [[] for _ in elements]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    charges = [0.0] * len(elements)
    for atom, near in enumerate(neighbours):
        if elements[atom] == "N" and len(near) == 4:
            charges[atom] = 1.0
        elif elements[atom] == "C" and len(near) == 3:
            oxygens = [n for n in near if elements[n] == "O" and len(neighbours[n]) == 1]
            # The neutral nitrogen of a histidine ring has two neighbours.
            nitrogens = [n for n in near if elements[n] == "N" and len(neighbours[n]) == 3]
            for charge, group in ((-1.0, oxygens), (1.0, nitrogens)):
                if len(group) >= 2:
                    for member in group:
                        charges[member] = charge / len(group)
    return tuple(charges)
