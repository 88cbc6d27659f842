"""Conformations that were broken, stretched, mirrored or half mirrored on purpose."""

import pytest
import torch

from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import (
    has_the_bonds_of,
    relabel_hydrogens,
    require_molecules,
    validate,
)
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator


@pytest.fixture(scope="module")
def isoleucine() -> Molecule:
    """Two residues, three stereocentres."""
    return Molecule.from_sequence("IA")


@pytest.fixture(scope="module")
def relaxed(isoleucine: Molecule) -> torch.Tensor:
    return torch.from_numpy(isoleucine.positions_nm)


def swapped_substituents(molecule: Molecule, positions: torch.Tensor) -> torch.Tensor:
    """Mirror the last stereocentre's plane: its hand alone changes, its bonds stay."""
    centre, first, _, third = molecule.chirality_centres[-1]
    normal = torch.linalg.cross(
        positions[first] - positions[centre], positions[third] - positions[centre]
    )
    normal = normal / normal.norm()
    others = [
        j for i, j in (*molecule.bonds, *(bond[::-1] for bond in molecule.bonds)) if i == centre
    ]
    changed = positions.clone()
    for atom in set(others) - {first, third}:
        along = (positions[atom] - positions[centre]) @ normal
        changed[atom] = positions[atom] - 2 * along * normal
    return changed


def test_thermal_motion_breaks_nothing(isoleucine: Molecule, relaxed: torch.Tensor) -> None:
    # Bond lengths fluctuate by about 0.003 nm.
    noise = torch.randn(500, *relaxed.shape, generator=generator("thermal"), dtype=torch.float64)
    assert has_the_bonds_of(isoleucine, relaxed + 0.002 * noise).all()


def test_every_kind_of_damage_is_seen(isoleucine: Molecule, relaxed: torch.Tensor) -> None:
    first, second = isoleucine.bonds[0]
    bond = relaxed[second] - relaxed[first]
    samples = relaxed.repeat(5, 1, 1)
    samples[1, second] += 0.6 * bond  # A bond is gone.
    samples[2, second] -= 0.5 * bond  # A bond has collapsed.
    samples[3, 0] = relaxed[-1] + 0.1  # An atom is elsewhere, bonded to another.
    samples[4, 3, 1] = torch.nan
    assert has_the_bonds_of(isoleucine, samples).tolist() == [True, False, False, False, False]


def test_d_is_mapped_to_l_and_counted(isoleucine: Molecule, relaxed: torch.Tensor) -> None:
    samples = torch.stack([relaxed, -relaxed, relaxed, -relaxed])
    samples[3, 0] += 1.0
    validation = validate(isoleucine, samples)
    assert validation.mirrored.tolist() == [False, True, False, True]
    torch.testing.assert_close(validation.positions_nm[1], relaxed)
    for centre in isoleucine.chirality_centres:
        assert (signed_volume(validation.positions_nm[:3], centre) > 0).all()
    assert validation.counts() == {
        "num_samples": 4,
        "num_valid": 3,
        "num_broken": 1,
        "num_mirrored": 1,
        "num_mixed": 0,
    }


def test_a_diastereomer_is_neither(isoleucine: Molecule, relaxed: torch.Tensor) -> None:
    other = swapped_substituents(isoleucine, relaxed)
    validation = validate(isoleucine, torch.stack([relaxed, other]))
    assert validation.mixed.tolist() == [False, True]
    assert validation.mirrored.tolist() == [False, False]
    assert validation.valid.tolist() == [True, False]


def test_a_molecule_without_a_hand_is_never_mirrored() -> None:
    glycine = Molecule.from_sequence("GG")
    positions = torch.from_numpy(glycine.positions_nm)
    validation = validate(glycine, torch.stack([positions, -positions]))
    assert validation.valid.all()
    assert not validation.mirrored.any()


def test_exchanged_hydrogens_get_their_own_labels_back(
    isoleucine: Molecule, relaxed: torch.Tensor
) -> None:
    """Every pair of one tetrahedral atom; what turns a methyl group is left as it is."""
    names, residues = isoleucine.atom_names, isoleucine.residue_index
    atom = {key: i for i, key in enumerate(zip(residues, names, strict=True))}
    methyl = [atom[0, name] for name in ("HD11", "HD12", "HD13")]
    methylene = [atom[0, name] for name in ("HG12", "HG13")]
    samples = relaxed.repeat(3, 1, 1)
    samples[0, methyl[:2]] = relaxed[methyl[1::-1]]
    samples[1, methylene] = relaxed[methylene[::-1]]
    samples[2, methyl] = relaxed[[methyl[1], methyl[2], methyl[0]]]
    relabelled = relabel_hydrogens(isoleucine, samples)
    assert relabelled[1].equal(relaxed)
    assert relabelled[2].equal(samples[2])
    others = [i for i in range(isoleucine.num_atoms) if i not in methyl]
    assert relabelled[0, others].equal(relaxed[others])
    volumes = [signed_volume(p, (atom[0, "CD1"], *methyl)) for p in (relabelled[0], relaxed)]
    assert volumes[0] * volumes[1] > 0


def test_another_order_of_atoms_is_refused(isoleucine: Molecule, relaxed: torch.Tensor) -> None:
    """Methyl carbons before or after their first hydrogen: the bonds are of the usual length."""
    carbon, hydrogen = (isoleucine.atom_names.index(name) for name in ("CD1", "HD11"))
    samples = relaxed.repeat(4, 1, 1)
    require_molecules(isoleucine, samples)
    samples[:3, [carbon, hydrogen]] = samples[:3, [hydrogen, carbon]]
    with pytest.raises(
        InputError, match=r"order of atoms: .* nm between C.* and .*, which are bonded"
    ):
        require_molecules(isoleucine, samples)
