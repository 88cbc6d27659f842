"""Which bonds of a molecule turn slowly."""

from collections.abc import Iterable, Sequence

import networkx as nx

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
    heavy = nx.Graph((i, j) for i, j in bonds if "H" not in (elements[i], elements[j]))
    excluded = {frozenset(quadruple[1:3]) for quadruple in rigid}
    torsions = []
    # A bond is in no ring if the molecule falls apart without it.
    for b, c in sorted((min(bond), max(bond)) for bond in nx.bridges(heavy)):
        before, after = set(heavy[b]) - {c}, set(heavy[c]) - {b}
        if before and after and frozenset((b, c)) not in excluded:
            torsions.append((min(before), b, c, min(after)))
    return tuple(torsions)


def is_in_ring(bonds: Iterable[tuple[int, int]], bond: tuple[int, int]) -> bool:
    """Return whether a bond is part of a ring, which keeps a torsion about it from turning.

    Args:
        bonds: Bonded pairs of atoms.
        bond: One of them.
    """
    graph = nx.Graph(bonds)
    graph.remove_edge(*bond)
    return nx.has_path(graph, *bond)


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
