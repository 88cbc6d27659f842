"""The Boltzmann distribution of a run, built once and sent to every worker."""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.graph import is_in_ring
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.potentials.xtb import XTBPotential
from bnce_dist.config.section import (
    Angle,
    Names,
    Place,
    Positive,
    Section,
)
from bnce_dist.core.errors import InputError

RING_HALF_WIDTH = math.pi / 3
"""How far from its place a torsion in a ring of five or six is taken to turn [rad]."""


class TargetConfig(Section):
    """The Boltzmann distribution to sample, and the state whose free energy is asked for."""

    sequence: str | None = "ACE-ALA-NME"
    """Residues: three-letter names joined by dashes, or one-letter codes."""
    pdb: Place | None = None
    """Path of a PDB file, instead of a sequence."""
    force_field: Names = ("amber14-all.xml", "implicit/obc1.xml")
    """OpenMM force-field files."""
    temperature_kelvin: Positive = 300.0
    """Bath temperature [K]."""
    state_phi_min: Angle = 0.0
    """Lower edge of the state in phi [rad]."""
    state_phi_max: Angle = 2.0
    """Upper edge of the state in phi [rad]."""

    @model_validator(mode="before")
    @classmethod
    def _pdb_replaces_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("pdb") is not None:
            return {"sequence": None, **values}
        return values

    @model_validator(mode="after")
    def _check_consistent(self) -> "TargetConfig":
        one_source = (self.sequence is None) != (self.pdb is None)
        self.require(one_source, "one of sequence and pdb, the other null", "sequence", "pdb")
        self.require(
            self.state_phi_min < self.state_phi_max,
            "state_phi_min below state_phi_max",
            "state_phi_min",
            "state_phi_max",
        )
        return self


@dataclass(frozen=True)
class Target:
    """A molecule, its reduced potential, and the state whose free energy is asked for.

    Args:
        molecule: The molecule.
        force_field: Evaluates in float64, at the target's temperature, on its own device; or xTB
            does, on the CPU.
        state_phi: Open interval of phi that is the state [rad].
    """

    molecule: Molecule
    force_field: ForceField | XTBPotential
    state_phi: tuple[float, float]

    @classmethod
    def from_config(cls, config: TargetConfig) -> "Target":
        """Build what the configuration names.

        Raises: InputError: unknown sequence or force field, unusable PDB file, or a state that the
            molecule cannot be in, or cannot leave.
        """
        molecule = (
            Molecule.from_pdb(Path(config.pdb))
            if config.pdb is not None
            else Molecule.from_sequence(str(config.sequence))
        )
        state_phi = (config.state_phi_min, config.state_phi_max)
        _require_reachable(molecule, state_phi)
        system = build_system(molecule, config.force_field)
        force_field = ForceField.from_system(system, config.temperature_kelvin)
        return cls(molecule, force_field, state_phi)

    def dynamics(self, num_chains: int, compiled: bool) -> ForceField:
        """Return the force field for simulating so many chains at once, in float32.

        Args:
            num_chains: Chains on one worker.
            compiled: Whether compiling it is worth the time.

        Raises: InputError: the potential is no force field.
        """
        if not isinstance(self.force_field, ForceField):
            raise InputError(
                "potential of a simulation",
                expected="a force field",
                got=type(self.force_field).__name__,
                remedy="simulate with a force field and anneal to the other potential",
            )
        force_field = self.force_field.astype(torch.float32)
        return force_field.compiled(num_chains) if compiled else force_field

    def to(self, device: torch.device) -> "Target":
        """Return this with its force field on another device."""
        if not isinstance(self.force_field, ForceField):
            return self  # Other potentials answer where they are asked.
        if device == self.force_field.device:
            return self
        return replace(self, force_field=copy.deepcopy(self.force_field).to(device))

    def at_temperature(self, temperature_kelvin: float) -> "Target":
        """Return the same molecule and force field at another temperature.

        Raises: InputError: it is not positive.
        """
        return replace(self, force_field=self.force_field.at_temperature(temperature_kelvin))

    def with_force_field(self, *files: str) -> "Target":
        """Return the same molecule and temperature under another force field of OpenMM's.

        Raises: InputError: a file is unknown or has no parameters for the molecule.
        """
        system = build_system(self.molecule, files)
        temperature_kelvin = self.force_field.temperature_kelvin
        return replace(self, force_field=ForceField.from_system(system, temperature_kelvin))

    def with_xtb(self) -> "Target":
        """Return the same molecule and temperature in GFN2-xTB with implicit water.

        Its energies take some ten milliseconds each.

        Raises: InputError: tblite is not installed.
        """
        temperature_kelvin = self.force_field.temperature_kelvin
        return replace(self, force_field=XTBPotential(self.molecule, temperature_kelvin))

    def in_state(self, phi: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which values of phi [rad] are in the state."""
        lower, upper = self.state_phi
        return (lower < phi) & (phi < upper)


def _require_reachable(molecule: Molecule, state_phi: tuple[float, float]) -> None:
    """Refuse a state that a ring, as of proline, keeps phi out of, or in."""
    if not is_in_ring(molecule.bonds, molecule.phi[1:3]):
        return
    phi = float(dihedral(torch.from_numpy(molecule.positions_nm)[None], molecule.phi))
    lowest, highest = phi - RING_HALF_WIDTH, phi + RING_HALF_WIDTH
    lower, upper = state_phi
    if lowest < lower < highest or lowest < upper < highest:
        return
    raise InputError(
        "target.state_phi_min and target.state_phi_max",
        expected=f"an edge between {lowest:.1f} and {highest:.1f} rad, which is as far as the ring "
        f"of {molecule.name} lets phi turn",
        got=f"{lower:g} to {upper:g}",
        remedy="choose such an edge, or a molecule whose first phi turns",
    )
