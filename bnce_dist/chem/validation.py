"""Are sampled conformations still the molecule, and of which hand? Geometry alone decides."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bnce_dist.chem.elements import COVALENT_RADIUS_NM
from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import require_positions
from bnce_dist.core.errors import InputError

_SHORTEST, _LONGEST = 0.7, 1.3
"""Range of a bond, in units of the sum of covalent radii."""
_MISPLACED = 1.5
"""Longer typical bonds, in the same units, are between atoms that are not bonded."""
_TYPICAL_BOND_NM = (0.05, 0.3)
"""Range of the median bond length; half of a peptide's bonds are to hydrogens, of 0.1 nm."""


@dataclass(frozen=True)
class ValidatedPositions:
    """What is known of every sample; none is dropped.

    Args:
        positions_nm: The samples, mirror images inverted, ``(batch, atoms, 3)`` [nm].
        intact: The bonds are the molecule's, no more and no fewer, ``(batch,)``.
        mirrored: All stereocentres were D: the sample was inverted, ``(batch,)``.
        mixed: Some stereocentres are D and some L, another molecule, ``(batch,)``.
    """

    positions_nm: Tensor
    intact: Tensor
    mirrored: Tensor
    mixed: Tensor

    @property
    def valid(self) -> Tensor:
        """Which samples are the molecule, ``(batch,)``; the others get weight zero."""
        return self.intact & ~self.mixed

    def counts(self) -> dict[str, int]:
        """Return how many samples there are of each kind, for reports."""
        return {
            "num_samples": len(self.intact),
            "num_valid": int(self.valid.sum()),
            "num_broken": int((~self.intact).sum()),
            "num_mirrored": int((self.intact & self.mirrored).sum()),
            "num_mixed": int((self.intact & self.mixed).sum()),
        }


def validate(molecule: Molecule, positions_nm: Tensor) -> ValidatedPositions:
    """Check every sample's bonds and handedness, and map D to L.

    Args:
        molecule: What the samples should be.
        positions_nm: ``(batch, atoms, 3)`` [nm]; not-a-numbers count as broken.
    """
    if molecule.chirality_centres:
        volumes = [signed_volume(positions_nm, centre) for centre in molecule.chirality_centres]
        is_l = torch.stack(volumes, dim=1) > 0
    else:
        is_l = torch.ones(len(positions_nm), 1, dtype=torch.bool, device=positions_nm.device)
    mirrored = ~is_l.any(1)
    return ValidatedPositions(
        positions_nm=torch.where(mirrored[:, None, None], -positions_nm, positions_nm),
        intact=has_the_bonds_of(molecule, positions_nm),
        mirrored=mirrored,
        mixed=is_l.any(1) & ~is_l.all(1),
    )


def has_native_chirality(molecule: Molecule, positions_nm: Tensor) -> Tensor:
    """Tell in which conformations every chirality centre is as in the molecule.

    Args:
        molecule: The molecule.
        positions_nm: ``(batch, atoms, 3)`` [nm].

    Returns: ``(batch,)``.
    """
    native = torch.ones(len(positions_nm), dtype=torch.bool, device=positions_nm.device)
    for centre in molecule.chirality_centres:
        native &= signed_volume(positions_nm, centre) > 0
    return native


def require_molecules(molecule: Molecule, positions_nm: Tensor) -> None:
    """Check that positions are finite, of this molecule, and in nm.

    Args:
        molecule: The molecule.
        positions_nm: ``(batch, atoms, 3)``.

    Raises: InputError: otherwise; positions in angstrom, or in another order of atoms, are told
        by the lengths of the bonds.
    """
    require_positions(positions_nm, molecule.num_atoms)
    if len(positions_nm) == 0:
        return
    first, second = torch.tensor(molecule.bonds).T
    lengths = (positions_nm[:, first] - positions_nm[:, second]).norm(dim=2)
    typical = float(lengths.median())
    if not _TYPICAL_BOND_NM[0] < typical < _TYPICAL_BOND_NM[1]:
        is_angstrom = _TYPICAL_BOND_NM[0] < typical / 10 < _TYPICAL_BOND_NM[1]
        raise InputError(
            "positions_nm",
            expected="nanometres, with bonds of 0.1 to 0.15 nm",
            got=f"bonds of {typical:.3g}" + (", which are angstrom" if is_angstrom else ""),
            remedy="divide by 10" if is_angstrom else "check the unit and the order of atoms",
        )
    stretch = lengths.median(dim=0).values / _covalent_lengths(molecule, first, second)
    worst = int(stretch.argmax())
    if stretch[worst] > _MISPLACED:
        names = [molecule.atom_names[atom] for atom in molecule.bonds[worst]]
        raise InputError(
            "order of atoms",
            expected=f"that of the molecule, {' '.join(molecule.atom_names[:6])} ...",
            got=f"{lengths.median(dim=0).values[worst]:.3f} nm between {' and '.join(names)}, "
            "which are bonded",
            remedy="sort the atoms by residue and name, as in the molecule's atom_names",
        )


def relabel_hydrogens(molecule: Molecule, positions_nm: Tensor) -> Tensor:
    """Exchange hydrogens of one tetrahedral atom wherever they are numbered the other way round.

    To a model that gives such hydrogens the same features, both numberings are one sample; in
    internal coordinates they lie far apart.

    Args:
        molecule: Its positions show the right numbering.
        positions_nm: ``(batch, atoms, 3)`` [nm], of the molecule's hand.

    Returns: Positions of the same shape; nothing else is changed.
    """
    groups = torch.tensor(exchangeable_hydrogens(molecule)).reshape(-1, 4)
    both = groups[:, 2:]

    def is_positive(positions: Tensor) -> Tensor:
        return signed_volume(positions[..., groups, :], range(4)) > 0

    native = is_positive(torch.from_numpy(molecule.positions_nm)).to(positions_nm.device)
    wrong = (is_positive(positions_nm) != native)[..., None, None]
    hydrogens = positions_nm[:, both]
    relabelled = positions_nm.clone()
    relabelled[:, both] = torch.where(wrong, hydrogens.flip(2), hydrogens)
    return relabelled


def exchangeable_hydrogens(molecule: Molecule) -> list[tuple[int, int, int, int]]:
    """Return every tetrahedral atom with two hydrogens or more, and what tells its hand.

    Args:
        molecule: The molecule.

    Returns: The atom, a heavy neighbour and two of its hydrogens.
    """
    neighbours: dict[int, list[int]] = {}
    for i, j in molecule.bonds:
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    found = []
    for centre, near in neighbours.items():
        hydrogens = sorted(n for n in near if molecule.elements[n] == "H")
        if len(near) == 4 and len(hydrogens) >= 2:
            found.append((centre, min(set(near) - set(hydrogens)), hydrogens[-2], hydrogens[-1]))
    return found


def has_the_bonds_of(molecule: Molecule, positions_nm: Tensor) -> Tensor:
    """Tell which conformations have exactly the molecule's bonds.

    Atoms within 1.3 sums of their covalent radii are bonded; a bond below 0.7 sums has collapsed.
    Thermal motion stays well inside that range.

    Args:
        molecule: The molecule.
        positions_nm: ``(batch, atoms, 3)`` [nm].

    Returns: ``(batch,)``.
    """
    first, second = torch.triu_indices(molecule.num_atoms, molecule.num_atoms, offset=1)
    bonded = torch.zeros(molecule.num_atoms, molecule.num_atoms, dtype=torch.bool)
    bonded[tuple(torch.tensor(molecule.bonds).T)] = True
    expected = (bonded | bonded.T)[first, second].to(positions_nm.device)
    typical = _covalent_lengths(molecule, first, second).to(positions_nm)
    first, second = first.to(positions_nm.device), second.to(positions_nm.device)
    relative = (positions_nm[:, first] - positions_nm[:, second]).norm(dim=2) / typical
    is_right = ((relative < _LONGEST) == expected) & (relative > _SHORTEST)
    return is_right.all(1)


def _covalent_lengths(molecule: Molecule, first: Tensor, second: Tensor) -> Tensor:
    """Return the sums of the covalent radii of pairs of atoms, ``(pairs,)`` [nm]."""
    radii = torch.tensor([COVALENT_RADIUS_NM[element] for element in molecule.elements])
    return radii[first] + radii[second]
