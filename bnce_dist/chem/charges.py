"""Formal charges from the molecular graph alone."""

from collections.abc import Sequence


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
