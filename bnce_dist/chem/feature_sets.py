"""By which features a field for many molecules tells atoms apart, and which molecules have them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bnce_dist.chem.features import (
    NUM_DIPEPTIDE_FEATURES,
    dipeptide_features,
    dipeptide_residue_type,
)
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.peptide_features import NUM_PEPTIDE_FEATURES, peptide_features
from bnce_dist.chem.templates import parse_sequence
from bnce_dist.core.errors import InputError

FeatureSetName = Literal["dipeptide", "peptide"]


@dataclass(frozen=True)
class FeatureSet:
    """Features that many molecules share.

    Args:
        name: As configurations call it.
        num_features: Features of an atom; no two sets have as many.
        of_molecule: Returns ``(atoms, features)``, and refuses a molecule that has none.
        residue_type: Returns what a residue of this name counts as.
    """

    name: FeatureSetName
    num_features: int
    of_molecule: Callable[[Molecule], Tensor]
    residue_type: Callable[[str], str]

    def residue_types(self, molecules: Iterable[Molecule]) -> set[str]:
        """Return the types of all residues of some molecules."""
        return {self.residue_type(name) for one in molecules for name in one.residue_names}


DIPEPTIDE = FeatureSet(
    "dipeptide", NUM_DIPEPTIDE_FEATURES, dipeptide_features, dipeptide_residue_type
)
"""Those of the published models, of two amino acids without caps."""
PEPTIDE = FeatureSet("peptide", NUM_PEPTIDE_FEATURES, peptide_features, str)
"""Of any peptide."""
FEATURE_SETS = {one.name: one for one in (DIPEPTIDE, PEPTIDE)}


def feature_set_for(sequences: Sequence[str]) -> FeatureSet:
    """Return the published features where all sequences have them, else those of any peptide."""
    residues = [parse_sequence(sequence) for sequence in sequences]
    published = all(
        len(names) == 2 and all(map(DIPEPTIDE.residue_type, names)) for names in residues
    )
    return DIPEPTIDE if published else PEPTIDE


def feature_set_of_width(num_features: int) -> FeatureSet:
    """Return the set that a field was made for.

    Args:
        num_features: Of an atom.

    Raises: InputError: no set has as many.
    """
    for one in FEATURE_SETS.values():
        if one.num_features == num_features:
            return one
    known = ", ".join(f"{one.num_features} ({one.name})" for one in FEATURE_SETS.values())
    raise InputError(
        "features of a field for many molecules", expected=known, got=num_features,
        remedy="use a field that was trained on many molecules",
    )  # fmt: skip
