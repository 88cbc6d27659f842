"""Whitening by type: stiff coordinates that many molecules have in common, measured once for all.

The type of a stiff coordinate is the residue, the place in the chain and the name of the atom that
it places, with the names of the atoms it refers to: the same in every molecule where that residue
stands in that place. Coordinates about one atom are correlated; they can be whitened as one block.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates.internal import (
    BASIN_HALF_WIDTH,
    MAX_NARROW_DEVIATION,
    MAX_WEIGHT_OUTSIDE_BASIN,
    MIN_DEVIATION,
    WhitenedInternal,
    covariance_root,
)
from bnce_dist.chem.coordinates.numbering import standing_in
from bnce_dist.chem.coordinates.zmatrix import ABSENT, ZMatrix
from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.rest import RestValues
from bnce_dist.chem.templates import CAPS
from bnce_dist.core.errors import InputError
from bnce_dist.core.path import wrap_angle

Blocks = Literal["coordinate", "centre"]
"""What is whitened together: each stiff coordinate alone, or all by which one residue's atoms stand
about one atom."""
# Of a torsion that no training molecule has; those that were measured have 0.1 to 0.2 rad.
_TORSION_DEVIATION = 0.15
_SEPARATOR = ", "
_BACKBONE = ("N", "CA", "C")


@dataclass(frozen=True)
class Block:
    """Stiff coordinates that are whitened together.

    Args:
        key: Their types.
        columns: Their places in the stiff block.
    """

    key: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class StiffTypes:
    """Mean and square root of the covariance of each type of block.

    Args:
        blocks: What is whitened together.
        means: Of each block's coordinates, by its key, ``(coordinates,)`` [nm or rad].
        roots: Square roots of their covariances, ``(coordinates, coordinates)``.
    """

    blocks: Blocks
    means: Mapping[str, Tensor]
    roots: Mapping[str, Tensor]

    @classmethod
    def fit(
        cls, molecules: Sequence[Molecule], positions_nm: Sequence[Tensor], blocks: Blocks
    ) -> Self:
        """Measure all types that some molecules have, each molecule's frames with equal weights.

        Frames in which a narrow torsion of a block is in another basin do not enter that block.

        Args:
            molecules: The molecules.
            positions_nm: Frames of each, ``(frames, atoms, 3)`` [nm].
            blocks: What is whitened together.

        Raises: InputError: as for `WhitenedInternal.encode`; a type that does not vary, has too few
            frames, or a torsion that should be narrow and is not.
        """
        found: dict[str, list[Tensor]] = {}
        for molecule, positions in zip(molecules, positions_nm, strict=True):
            zmatrix = shared_zmatrix(molecule)
            stiff = _measured(zmatrix, positions)
            for block in blocks_of(molecule, zmatrix, blocks):
                found.setdefault(block.key, []).append(stiff[:, block.columns])
        statistics = {key: _statistics(key, torch.cat(parts)) for key, parts in found.items()}
        return cls(
            blocks,
            {key: mean for key, (mean, _) in statistics.items()},
            {key: root for key, (_, root) in statistics.items()},
        )

    def coordinates(
        self, molecule: Molecule, rest_values: RestValues
    ) -> tuple[WhitenedInternal, tuple[str, ...]]:
        """Return the coordinates of any molecule, seen or not.

        The coordinates of a block that was not measured have the rest value and the width of the
        force field, torsions the value of the relaxed structure, and no correlations.

        Args:
            molecule: The molecule.
            rest_values: Of its bonds and angles in the force field.

        Returns: The coordinates, and the types that were not measured.
        Raises: InputError: a bond or an angle without a rest value where one is needed.
        """
        zmatrix = shared_zmatrix(molecule)
        num_stiff = len(zmatrix.stiff)
        mean = torch.zeros(num_stiff, dtype=torch.float64)
        unwhitening = torch.zeros(num_stiff, num_stiff, dtype=torch.float64)
        unknown = []
        for block in blocks_of(molecule, zmatrix, self.blocks):
            columns = torch.tensor(block.columns)
            if block.key in self.means:
                mean[columns] = self.means[block.key]
                unwhitening[columns[:, None], columns] = self.roots[block.key]
            else:
                unknown += block.key.split(_SEPARATOR)
                for column in block.columns:
                    mean[column], unwhitening[column, column] = _fallback(
                        molecule, zmatrix.stiff[column], rest_values
                    )
        return WhitenedInternal(zmatrix, mean, unwhitening), tuple(unknown)

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which `from_state` rebuilds this."""
        return {"blocks": self.blocks, "means": dict(self.means), "roots": dict(self.roots)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `to_state` described."""
        return cls(**state)


def shared_zmatrix(molecule: Molecule) -> ZMatrix:
    """Return the Z-matrix in which a residue looks the same in all chains of one length.

    Its tree begins in the middle of the backbone, counted by its own atoms: what the side chains
    carry would turn it round from one chain to the next. Like atoms that are numbered the other way
    round than in other molecules take each other's rows.

    Args:
        molecule: A chain of amino acids and caps.

    Raises: InputError: no amino acid, or as for `ZMatrix.from_graph`.
    """
    order = {name: number for number, name in enumerate(_BACKBONE)}
    chain = sorted(
        (residue, order[name], atom)
        for atom, (name, residue) in enumerate(
            zip(molecule.atom_names, molecule.residue_index, strict=True)
        )
        if name in order and molecule.residue_names[residue] not in CAPS
    )
    if not chain:
        raise InputError(
            f"molecule {molecule.name}",
            expected="a peptide of amino acids and caps",
            got="none with N, CA and C",
            remedy="train a model of this molecule alone",
        )
    *_, centre = chain[(len(chain) - 1) // 2]
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds, centre)
    atoms = [*standing_in(molecule), ABSENT]  # the last stands for itself
    rows = ((atoms[a], atoms[b], atoms[c], atoms[d]) for a, b, c, d in zmatrix.rows)
    return replace(zmatrix, rows=tuple(rows))


def blocks_of(molecule: Molecule, zmatrix: ZMatrix, blocks: Blocks) -> list[Block]:
    """Return the blocks of a molecule's stiff coordinates; each coordinate is in one of them.

    Args:
        molecule: Names the types.
        zmatrix: Of the same molecule.
        blocks: What is whitened together.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for column, atoms in enumerate(zmatrix.stiff):
        # About the carbon of a peptide bond there are atoms of two residues, of any two.
        centre = (atoms[1], molecule.residue_index[atoms[0]])
        members.setdefault((column,) if blocks == "coordinate" else centre, []).append(column)
    names = _standard_names(molecule)
    types = [_type(molecule, names, atoms) for atoms in zmatrix.stiff]
    return [
        Block(_SEPARATOR.join(types[column] for column in columns), tuple(columns))
        for columns in members.values()
    ]


def _standard_names(molecule: Molecule) -> list[str]:
    """Return the name of each atom in a molecule of the standard order."""
    names = list(molecule.atom_names)
    for number, atom in enumerate(standing_in(molecule)):
        names[atom] = molecule.atom_names[number]
    return names


def _type(molecule: Molecule, names: Sequence[str], atoms: Sequence[int]) -> str:
    """Return e.g. ``"SER last CB/CA/N"``: who places whom, other residues by their distance."""
    own, last = molecule.residue_index[atoms[0]], len(molecule.residue_names) - 1
    place = "first" if own == 0 else "last" if own == last else "inner"
    parts = (
        names[atom] + (f"({offset:+d})" if (offset := molecule.residue_index[atom] - own) else "")
        for atom in atoms
    )
    return f"{molecule.residue_names[own]} {place} {'/'.join(parts)}"


def _measured(zmatrix: ZMatrix, positions_nm: Tensor) -> Tensor:
    """Return the stiff coordinates themselves, ``(frames, stiff)``."""
    plain = WhitenedInternal.unwhitened(zmatrix)
    return plain.encode(positions_nm.cpu())[0][:, : plain.num_euclidean]


def _statistics(key: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and square root of the covariance of a block's values, ``(frames, columns)``."""
    is_torsion = torch.tensor([name.count("/") == 3 for name in _names(key)])
    centre = torch.where(
        is_torsion, torch.atan2(values.sin().mean(0), values.cos().mean(0)), values.mean(0)
    )
    away = torch.where(is_torsion, wrap_angle(values - centre), values - centre)
    near = ~((away.abs() > BASIN_HALF_WIDTH) & is_torsion).any(1)
    outside = float((~near).double().mean()) if len(near) else 0.0
    # Two basins of like shares are no half turn from the mean between them.
    broadest = float((away.square().mean(0).sqrt() * is_torsion).max()) if len(near) else 0.0
    if outside > MAX_WEIGHT_OUTSIDE_BASIN or broadest > MAX_NARROW_DEVIATION:
        raise InputError(
            f"torsions of {key}",
            expected=f"a spread below {MAX_NARROW_DEVIATION} rad, and less than "
            f"{MAX_WEIGHT_OUTSIDE_BASIN:.0%} of the frames in another basin",
            got=f"{broadest:.3g} rad and {outside:.0%}",
            remedy="look for cis peptide bonds, or groups that two molecules number differently",
        )
    away = away[near]
    if len(away) <= away.shape[1]:
        raise InputError(
            f"training frames with {key}",
            expected=f"more than {away.shape[1]}",
            got=len(away),
            remedy="raise dataset.num_chains or dataset.frames_per_chain",
        )
    shift = away.mean(0)
    covariance = torch.cov((away - shift).T, correction=0).reshape(len(shift), len(shift))
    if (covariance.diagonal() < MIN_DEVIATION**2).any():
        raise InputError(
            f"training frames with {key}",
            expected=f"standard deviations above {MIN_DEVIATION} nm or rad",
            got=f"{covariance.diagonal().min().sqrt():.3g}",
            remedy="simulate without constraints: a frozen coordinate has no density",
        )
    return centre + shift, covariance_root(covariance)


def _names(key: str) -> Iterable[str]:
    """Return the names of the atoms of each type in a key, joined by slashes."""
    return (one.split(" ")[2] for one in key.split(_SEPARATOR))


def _fallback(
    molecule: Molecule, atoms: tuple[int, ...], rest_values: RestValues
) -> tuple[float, float]:
    """Return where a coordinate rests and how far it swings."""
    if len(atoms) == 4:
        first, second, third, fourth = atoms
        positions = torch.from_numpy(molecule.positions_nm)[None]
        angle = dihedral(positions, (first, second, third, fourth)).item()
        return angle, _TORSION_DEVIATION
    if atoms not in rest_values:
        raise InputError(
            f"molecule {molecule.name}",
            expected="harmonic bonds and angles wherever no training molecule has them",
            got=f"none for {_type(molecule, _standard_names(molecule), atoms)}",
            remedy="add a molecule that has it to transferable.training_molecules",
        )
    return rest_values[atoms]
