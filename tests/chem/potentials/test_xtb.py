"""GFN2-xTB against single points that tblite is asked for directly."""

import pickle
import sys

import numpy as np
import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.xtb import XTBPotential
from bnce_dist.core.errors import InputError

BOHR_NM, HARTREE_EV, BOLTZMANN_EV_KELVIN = 0.0529177210903, 27.211386245988, 8.617333262e-5
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8}


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


@pytest.fixture(scope="module")
def potential(molecule: Molecule) -> XTBPotential:
    pytest.importorskip("tblite", reason="tblite is not installed")
    return XTBPotential(molecule, 300.0)


def test_single_points_clashes_and_what_comes_after_them(
    molecule: Molecule, potential: XTBPotential
) -> None:
    """A clash must neither crash nor spoil the next conformation."""
    from tblite.interface import Calculator

    relaxed = molecule.positions_nm
    distorted = relaxed + np.random.default_rng(0).normal(scale=0.003, size=relaxed.shape)
    coincident = relaxed.copy()
    coincident[5] = coincident[4]
    scrambled = relaxed + np.random.default_rng(0).normal(scale=0.2, size=relaxed.shape)
    batch = torch.from_numpy(np.stack([relaxed, coincident, scrambled, distorted]))
    energies = potential.reduced_potential(batch)

    expected = []
    for positions in (relaxed, distorted):
        numbers = np.array([NUMBERS[symbol] for symbol in molecule.elements])
        direct = Calculator("GFN2-xTB", numbers, positions / BOHR_NM)
        direct.add("gbsa-solvation", "water")
        direct.set("temperature", 300.0 * BOLTZMANN_EV_KELVIN / HARTREE_EV)
        direct.set("verbosity", 0)
        expected.append(direct.singlepoint().get("energy"))
    in_kT = np.array(expected) * HARTREE_EV / (BOLTZMANN_EV_KELVIN * 300.0)
    assert energies[1:3].isposinf().all()
    np.testing.assert_allclose(energies[[0, 3]], in_kT, rtol=0, atol=1e-3)


def test_forces_are_the_slope_of_the_energy(molecule: Molecule, potential: XTBPotential) -> None:
    rng = np.random.default_rng(1)
    start = molecule.positions_nm + rng.normal(scale=0.003, size=molecule.positions_nm.shape)
    direction = rng.normal(size=start.shape)
    step = 1e-5
    coincident = start.copy()
    coincident[5] = coincident[4]
    batch = np.stack([start, start + step * direction, start - step * direction, coincident])
    energies, forces = potential.energy_and_forces_kj_mol(torch.from_numpy(batch))
    slope = float(energies[1] - energies[2]) / (2 * step)
    assert -(forces[0].numpy() * direction).sum() == pytest.approx(slope, rel=1e-3)
    assert energies[3].isposinf()
    assert (forces[3] == 0).all()


def test_it_travels_to_workers(molecule: Molecule, potential: XTBPotential) -> None:
    batch = torch.from_numpy(molecule.positions_nm)[None]
    copy = pickle.loads(pickle.dumps(potential))
    torch.testing.assert_close(
        copy.reduced_potential(batch), potential.reduced_potential(batch), rtol=0, atol=1e-6
    )


def test_positions_of_another_molecule_are_refused(potential: XTBPotential) -> None:
    with pytest.raises(InputError, match="shape"):
        potential.reduced_potential(torch.zeros(1, 5, 3))


def test_without_tblite(molecule: Molecule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(InputError, match=r"the package tblite.*bnce_dist\[xtb\]") as refusal:
        XTBPotential(molecule, 300.0)
    assert "\n" not in str(refusal.value)
