"""What tells the atoms of any peptide apart, in the same way for chains of every length."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bnce_dist.chem.features import AROMATIC, ATOM_CLASSES, atom_class
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import CAPS, D_RESIDUES, RESIDUES, VARIANTS
from bnce_dist.core.errors import InputError

_TYPES = (*RESIDUES, *VARIANTS, *CAPS)
_ELEMENTS = ("H", "C", "N", "O", "S")
# Of caps; and the oxygens of an acid's side chain, of which only one has the proton.
_CLASSES = (*ATOM_CLASSES, "CH3", "HH3", "HN", "OD1", "OD2", "OE1", "OE2")
_PROTONATED = ("ASH", "GLH")
# Residues; so that the chains of training lists have places of the order of one.
_UNIT_OF_PLACE = 4

NUM_PEPTIDE_FEATURES = 4 + len(_TYPES) + 1 + len(_ELEMENTS) + len(_CLASSES)


def peptide_features(molecule: Molecule) -> Tensor:
    """Return features of the atoms of a peptide with or without caps.

    A residue inside a chain has the same ones whatever the length, but for its place: the residues
    before and after it, in units of four. Plain numbers go on smoothly beyond the longest chain in
    training, where waves repeat.

    Args:
        molecule: A chain of amino acids and caps.

    Returns: ``(atoms, 100)``: whether the residue is the first and the last of the chain, caps
        included (2), its place (2), its type (29) and whether it is D; the element (5), and the
        class of the atom's name (61).
    Raises: InputError: a residue or an atom that no peptide has.
    """
    residues = [D_RESIDUES.get(name, name) for name in molecule.residue_names]
    of_residues = torch.cat(
        [
            _ends_and_places(len(residues)),
            _one_hot(molecule, residues, _TYPES),
            torch.tensor([[name in D_RESIDUES] for name in molecule.residue_names]).float(),
        ],
        dim=1,
    )
    classes = [
        _class(name, residues[index])
        for name, index in zip(molecule.atom_names, molecule.residue_index, strict=True)
    ]
    columns = [
        of_residues[list(molecule.residue_index)],
        _one_hot(molecule, molecule.elements, _ELEMENTS),
        _one_hot(molecule, classes, _CLASSES),
    ]
    return torch.cat(columns, dim=1)


def _ends_and_places(num_residues: int) -> Tensor:
    """Return the first features of each residue, ``(residues, 4)``."""
    before = torch.arange(num_residues)
    after = before.flip(0)
    columns = [before == 0, after == 0, before / _UNIT_OF_PLACE, after / _UNIT_OF_PLACE]
    return torch.stack([column.float() for column in columns], dim=1)


def _class(name: str, residue: str) -> str:
    if residue in _PROTONATED and name.startswith(("OD", "OE")):
        return name
    return atom_class(name, is_aromatic=_parent(residue) in AROMATIC)


def _parent(residue: str) -> str:
    return "HIS" if residue.startswith("HI") else residue


def _one_hot(
    molecule: Molecule, names: list[str] | tuple[str, ...], known: tuple[str, ...]
) -> Tensor:
    unknown = dict.fromkeys(name for name in names if name not in known)
    if unknown:
        raise InputError(
            "molecule of the node features",
            expected="a peptide of amino acids and caps",
            got=f"{molecule.name} with {', '.join(unknown)}",
            remedy="train a model of this molecule alone",
        )
    return one_hot(torch.tensor([known.index(name) for name in names]), len(known)).float()
