"""GFN2-xTB in implicit water: the semi-empirical target of the published alanine dipeptide."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import (
    BOLTZMANN_KJ_MOL_KELVIN,
    require_positions,
    require_temperature,
)
from bnce_dist.core.errors import InputError

_BOHR_NM = 0.0529177210903
_HARTREE_KJ_MOL = 2625.4996394799


class XTBPotential:
    """Reduced potential of GFN2-xTB with generalised Born water, by tblite.

    A conformation takes some ten milliseconds on one thread, and many times that where several
    threads share it: ``OMP_NUM_THREADS`` must be 1 before the process starts.

    Args:
        molecule: Elements, charge, and a geometry to start from.
        temperature_kelvin: Temperature of the reduced potential and of the electrons [K].

    Raises: InputError: tblite is not installed, or the temperature is not positive.
    Source: Bannwarth, Ehlert, Grimme (2019), J. Chem. Theory Comput. 15, 1652; for the water
        Ehlert et al. (2021), J. Chem. Theory Comput. 17, 4250.
    """

    def __init__(self, molecule: Molecule, temperature_kelvin: float) -> None:
        try:
            from openmm import app
            from tblite.interface import Calculator
        except (ImportError, OSError) as error:  # absent, or without its library
            raise InputError(
                "potential xtb",
                expected="the package tblite, and that it works",
                got=error,
                remedy="pip install 'bnce_dist[xtb]', or choose the potential force_field",
            ) from error
        self.molecule = molecule
        self.num_atoms = molecule.num_atoms
        self.temperature_kelvin = require_temperature(temperature_kelvin)
        self._kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * self.temperature_kelvin
        numbers = [app.Element.getBySymbol(symbol).atomic_number for symbol in molecule.elements]
        self._calculator = Calculator(
            "GFN2-xTB",
            numbers,
            molecule.positions_nm / _BOHR_NM,
            charge=sum(molecule.formal_charges),
        )
        self._calculator.add("gbsa-solvation", "water")
        self._calculator.set("temperature", self._kt_kj_mol / _HARTREE_KJ_MOL)
        self._calculator.set("verbosity", 0)

    def __reduce__(self) -> tuple[type["XTBPotential"], tuple[Molecule, float]]:
        """Pickle what it was made from: the calculator belongs to one process."""
        return type(self), (self.molecule, self.temperature_kelvin)

    def at_temperature(self, temperature_kelvin: float) -> "XTBPotential":
        """Return the potential of the same molecule, also of its electrons, at another one [K].

        Raises: InputError: it is not positive.
        """
        return XTBPotential(self.molecule, temperature_kelvin)

    def reduced_potential(self, positions_nm: Tensor) -> Tensor:
        """Return the energies of conformations, ``inf`` where there is no electronic solution.

        That is so where atoms clash or the self-consistent field does not converge: such samples
        get weight zero, and whoever weights them counts them.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` float64 [kT].
        Raises: InputError: wrong shape, or a position that is not finite.
        """
        return self.energy_and_forces_kj_mol(positions_nm)[0] / self._kt_kj_mol

    def energy_and_forces_kj_mol(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energies and forces of conformations.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: Float64 energies ``(batch,)`` [kJ/mol], ``inf`` as in `reduced_potential`, and
            forces ``(batch, atoms, 3)`` [kJ/mol/nm], zero there.
        Raises: InputError: wrong shape, or a position that is not finite.
        """
        require_positions(positions_nm, self.num_atoms)
        conformations = positions_nm.detach().cpu().double().numpy() / _BOHR_NM
        energies = np.empty(len(conformations))
        gradients = np.empty(conformations.shape)
        for index, conformation in enumerate(conformations):
            energies[index], gradients[index] = self._single_point(conformation)
        return (
            torch.from_numpy(energies * _HARTREE_KJ_MOL).to(positions_nm.device),
            torch.from_numpy(-gradients * (_HARTREE_KJ_MOL / _BOHR_NM)).to(positions_nm.device),
        )

    def _single_point(
        self, positions_bohr: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """Return energy [hartree] and gradient [hartree/bohr], which tblite gives in one go."""
        from tblite.exceptions import TBLiteRuntimeError

        try:
            self._calculator.update(positions=positions_bohr)
            result = self._calculator.singlepoint()
        except TBLiteRuntimeError:
            return float("inf"), np.zeros_like(positions_bohr)
        return float(result.get("energy")), result.get("gradient")
