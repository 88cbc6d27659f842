"""What the graph of bonds tells: what turns slowly, what is planar, what has a hand."""

from collections.abc import Iterable, Sequence

import networkx as nx

Quadruple = tuple[int, int, int, int]
_SINGLE_BONDS = {"N": 3, "O": 2, "S": 2}
"""Bonds of an atom that is neutral and has no double bond."""


def find_rotatable_torsions(
    elements: Sequence[str], bonds: Sequence[tuple[int, int]], rigid: Iterable[Quadruple]
) -> tuple[Quadruple, ...]:
    """Return one torsion for every bond that heavy atoms can turn about, in order of atoms.

    Methyl, ammonium and hydroxyl groups, whose wells are equal or close, are not counted, nor are
    bonds between planar atoms, which are stiff, and of linear atoms, about which none is defined.

    Args:
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms.
        rigid: Torsions about bonds to leave out, such as peptide bonds.
    """
    heavy = nx.Graph((i, j) for i, j in bonds if "H" not in (elements[i], elements[j]))
    excluded = {frozenset(quadruple[1:3]) for quadruple in rigid}
    neighbours = neighbours_of(len(elements), bonds)
    planar, linear = planar_atoms(elements, neighbours), linear_atoms(elements, neighbours)
    torsions = []
    # A bond is in no ring if the molecule falls apart without it.
    for b, c in sorted((min(bond), max(bond)) for bond in nx.bridges(heavy)):
        before, after = set(heavy[b]) - {c}, set(heavy[c]) - {b}
        is_stiff = frozenset((b, c)) in excluded or {b, c} <= planar or {b, c} & linear
        if before and after and not is_stiff:
            torsions.append((min(before), b, c, min(after)))
    return tuple(torsions)


def neighbours_of(num_atoms: int, bonds: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the bonded atoms of each atom, in the order of the bonds."""
    neighbours: list[list[int]] = [[] for _ in range(num_atoms)]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    return neighbours


def planar_atoms(elements: Sequence[str], neighbours: Sequence[Sequence[int]]) -> set[int]:
    """Return the trigonal carbons and the nitrogens conjugated to them.

    Args:
        elements: Element symbol of each atom.
        neighbours: The bonded atoms of each atom.
    """
    carbons = {a for a, near in enumerate(neighbours) if elements[a] == "C" and len(near) == 3}
    nitrogens = {
        atom
        for atom, near in enumerate(neighbours)
        if elements[atom] == "N" and len(near) <= 3 and carbons.intersection(near)
    }
    return carbons | nitrogens


def linear_atoms(elements: Sequence[str], neighbours: Sequence[Sequence[int]]) -> set[int]:
    """Return the carbons whose two bonds are in a line, as in nitriles and alkynes.

    Args:
        elements: Element symbol of each atom.
        neighbours: The bonded atoms of each atom.
    """
    return {a for a, near in enumerate(neighbours) if elements[a] == "C" and len(near) == 2}


def stereocentres(
    elements: Sequence[str], bonds: Sequence[tuple[int, int]]
) -> tuple[Quadruple, ...]:
    """Return every atom with four neighbours that the graph tells apart, and three of them.

    Args:
        elements: Element symbol of each atom.
        bonds: Bonded pairs of atoms, hydrogens included.

    Source: neighbours are told apart by the colours of Weisfeiler and Leman (1968).
    """
    graph = nx.Graph(bonds)
    nx.set_node_attributes(graph, dict(enumerate(elements)), "element")
    colours = nx.weisfeiler_lehman_subgraph_hashes(
        graph, node_attr="element", iterations=max(1, len(elements) // 2)
    )
    found = []
    for atom, near in enumerate(neighbours_of(len(elements), bonds)):
        if len(near) == 4 and len({colours[n][-1] for n in near}) == 4:
            first, second, third, _ = sorted(near, key=lambda n: (elements[n] == "H", n))
            found.append((atom, first, second, third))
    return tuple(found)


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
    neighbours = neighbours_of(len(elements), bonds)
    charges = [0.0] * len(elements)
    for atom, near in enumerate(neighbours):
        if elements[atom] == "N" and len(near) == 4:
            charges[atom] = 1.0
        elif elements[atom] == "C" and len(near) == 3:
            oxygens = [n for n in near if elements[n] == "O" and len(neighbours[n]) == 1]
            nitrogens = [n for n in near if elements[n] == "N" and len(neighbours[n]) == 3]
            # Double bonds that leave the nitrogens neutral: of urea, guanidine and histidine.
            if any(len(neighbours[n]) < _SINGLE_BONDS.get(elements[n], 0) for n in near):
                nitrogens = []
            for charge, group in ((-1.0, oxygens), (1.0, nitrogens)):
                if len(group) >= 2:
                    for member in group:
                        charges[member] = charge / len(group)
    return tuple(charges)
