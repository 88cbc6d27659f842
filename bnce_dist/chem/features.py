"""What tells a molecule's atoms apart: the node features of the published models."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError

_ALANINE_DIPEPTIDE = ("ACE", "ALA", "NME")
# The published data put the first methyl's carbon before its hydrogens; a class is the index
# there, and the hydrogens of a methyl share one.
_ALANINE_DIPEPTIDE_CLASSES = (
    2, 0, 2, 2, 4, 5, 6, 7, 8, 9, 10, 12, 12, 12, 14, 15, 16, 17, 18, 20, 20, 20,
)  # fmt: skip

_RESIDUE_TYPES = (
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE",
    "LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
)  # fmt: skip
_HISTIDINES = ("HID", "HIE", "HIP")
AROMATIC = ("HIS", "PHE", "TRP", "TYR")
ATOM_CLASSES = (
    "C", "CA", "CB", "CD", "CD1", "CD2", "CE", "CE1", "CE2", "CE3", "CG", "CG1", "CG2", "CH2",
    "CZ", "CZ2", "CZ3", "H", "HA", "HB", "HD", "HD1", "HD2", "HE", "HE1", "HE2", "HE3", "HG",
    "HG1", "HG2", "HH", "HH1", "HH2", "HZ", "HZ2", "HZ3", "N", "ND1", "ND2", "NE", "NE1", "NE2",
    "NH1", "NH2", "NZ", "O", "OD", "OE", "OG", "OG1", "OH", "OXT", "SD", "SG",
)  # fmt: skip
NUM_DIPEPTIDE_FEATURES = 2 + len(_RESIDUE_TYPES) + len(ATOM_CLASSES)


def alanine_dipeptide_features(molecule: Molecule) -> Tensor:
    """Return the published features of ACE-ALA-NME in our order of atoms.

    Args:
        molecule: ACE-ALA-NME.

    Returns: ``(22, 21)``, one-hot.
    Raises: InputError: another molecule.
    """
    if molecule.residue_names != _ALANINE_DIPEPTIDE:
        raise _wrong_molecule(molecule, "-".join(_ALANINE_DIPEPTIDE))
    return one_hot(torch.tensor(_ALANINE_DIPEPTIDE_CLASSES)).float()


def dipeptide_features(molecule: Molecule) -> Tensor:
    """Return the features of the published transferable models.

    Args:
        molecule: Two amino acids without caps.

    Returns: ``(atoms, 76)``: one-hot position in the chain (2), residue type (20) and class of
        the atom's name (54).
    Raises: InputError: not two amino acids.
    """
    residues = [dipeptide_residue_type(name) for name in molecule.residue_names]
    if len(residues) != 2 or not all(residues):
        raise _wrong_molecule(
            molecule,
            "an uncapped dipeptide such as AC",
            "choose one, or train a field with transferable.features=peptide",
        )
    index = torch.tensor(molecule.residue_index)
    types = torch.tensor([_RESIDUE_TYPES.index(residue) for residue in residues])[index]
    classes = [
        ATOM_CLASSES.index(atom_class(name, is_aromatic=residues[position] in AROMATIC))
        for name, position in zip(molecule.atom_names, molecule.residue_index, strict=True)
    ]
    columns = [
        one_hot(index, len(residues)),
        one_hot(types, len(_RESIDUE_TYPES)),
        one_hot(torch.tensor(classes), len(ATOM_CLASSES)),
    ]
    return torch.cat(columns, dim=1).float()


def dipeptide_residue_type(name: str) -> str:
    """Return which of the twenty amino acids a residue counts as; nothing if it has no features."""
    parent = "HIS" if name in _HISTIDINES else name
    return parent if parent in _RESIDUE_TYPES else ""


def atom_class(name: str, *, is_aromatic: bool) -> str:
    """Return an atom's name without the digit that numbers equivalent atoms.

    Args:
        name: Amber's.
        is_aromatic: Whether its residue has an aromatic ring, whose hydrogens keep theirs.
    """
    on_ring = is_aromatic and name[:2] in ("HD", "HE", "HZ", "HH")
    if name[0] == "H" and name[-1] in "123" and not on_ring:
        return name[:-1]
    return name[:-1] if name[:2] in ("OD", "OE") else name


def _wrong_molecule(
    molecule: Molecule,
    expected: str,
    remedy: str = "choose the molecule the model was trained on",
) -> InputError:
    return InputError(
        "molecule of the node features", expected=expected, got=molecule.name, remedy=remedy
    )
