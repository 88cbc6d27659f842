"""The Boltzmann distribution of a run, built once and sent to every worker."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.order_parameters import find_companion, find_torsion
from bnce_dist.chem.potentials.force_field import ForceField, ImplicitSolvent, build_system
from bnce_dist.chem.potentials.xtb import XTBPotential
from bnce_dist.chem.simulation.long_reference import LongReference, find_long_reference
from bnce_dist.chem.state import State
from bnce_dist.config.section import Angle, Names, Place, Places, Positive, Section, Strings
from bnce_dist.core.errors import InputError

_STATE_PHI = (0.0, 2.0)


class TargetConfig(Section):
    """The Boltzmann distribution to sample, and the state whose free energy is asked for."""

    left_out_unset = frozenset(
        {"topology", "coordinates", "parameters", "implicit_solvent", "torsions", "state"}
    )

    sequence: str | None = "ACE-ALA-NME"
    """Residues: three-letter names joined by dashes, or one-letter codes."""
    pdb: Place | None = None
    """Path of a PDB or mmCIF (.cif) file of a peptide, instead of a sequence."""
    force_field: Names = ("amber14-all.xml", "implicit/obc1.xml")
    """OpenMM force-field files; not used with `topology`, which has its own parameters."""
    topology: Place | None = None
    """Amber's prmtop, CHARMM's psf, Gromacs' top or a System as XML, instead of a sequence."""
    coordinates: Place | None = None
    """Structure of `topology`: .pdb, .cif, .gro, .inpcrd, .rst7 or .crd."""
    parameters: Places = ()
    """CHARMM's parameter files, or the folder of the force fields that Gromacs' top includes."""
    implicit_solvent: ImplicitSolvent | None = None
    """Added to a prmtop or a psf: HCT, OBC1, OBC2, GBn or GBn2."""
    torsions: Strings = ()
    """One or two torsions that take the places of the first phi and psi (`chi1:2`, `C1-C2-C3-C4`):
    umbrellas bias both, and the state is a part of their plane."""
    state: str | None = None
    """A condition on the two torsions, as `phi in [0, 2] and psi in [-1, 1.5]` [rad]; unset is the
    interval of the first one from `state_phi_min` to `state_phi_max`."""
    temperature_kelvin: Positive = 300.0
    """Bath temperature [K]."""
    state_phi_min: Angle = _STATE_PHI[0]
    """Lower edge of the state in phi [rad]."""
    state_phi_max: Angle = _STATE_PHI[1]
    """Upper edge of the state in phi [rad]."""

    @model_validator(mode="before")
    @classmethod
    def _pdb_replaces_default(cls, values: Any) -> Any:
        others = ("pdb", "topology")
        if isinstance(values, dict) and any(values.get(name) is not None for name in others):
            return {"sequence": None, **values}
        return values

    @model_validator(mode="after")
    def _check_consistent(self) -> "TargetConfig":
        sources = ("sequence", "pdb", "topology")
        self.require(
            sum(getattr(self, source) is not None for source in sources) == 1,
            "one of sequence, pdb and topology, the others null",
            *sources,
        )
        self.require(
            (self.topology is None) == (self.coordinates is None),
            "topology and coordinates together",
            "topology",
            "coordinates",
        )
        self.require(
            self.topology is not None or not (self.parameters or self.implicit_solvent),
            "parameters and implicit_solvent with topology alone (else force_field)",
            "parameters",
            "implicit_solvent",
        )
        self.require(len(self.torsions) <= 2, "one or two torsions", "torsions")
        self.require(
            self.state_phi_min < self.state_phi_max,
            "state_phi_min below state_phi_max",
            "state_phi_min",
            "state_phi_max",
        )
        # A configuration that was written has the defaults of the interval in it.
        self.require(
            self.state is None or (self.state_phi_min, self.state_phi_max) == _STATE_PHI,
            "state alone, or state_phi_min and state_phi_max",
            "state",
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
        state: The state.
        system_xml: The OpenMM System of a molecule from a file, from which its force field was
            read; None where names of force-field files say it all.
    """

    molecule: Molecule
    force_field: ForceField | XTBPotential
    state: State
    system_xml: str | None = None

    @classmethod
    def from_config(cls, config: TargetConfig) -> "Target":
        """Build what the configuration names.

        Raises: InputError: unknown sequence or force field, unusable structure file, or a state
            that the molecule cannot be in, or cannot leave.
        """
        if config.topology is not None:
            from bnce_dist.chem.topology_file import read_molecule, system_to_xml

            molecule, system = read_molecule(
                Path(config.topology),
                Path(str(config.coordinates)),
                parameters=[Path(parameter) for parameter in config.parameters],
                implicit_solvent=config.implicit_solvent,
            )
            system_xml = system_to_xml(system)
        else:
            molecule = (
                Molecule.from_pdb(Path(config.pdb))
                if config.pdb is not None
                else Molecule.from_sequence(str(config.sequence))
            )
            system, system_xml = build_system(molecule, config.force_field), None
        molecule = _with_torsions(molecule, config.torsions)
        state = _state(molecule, config)
        state.require_reachable(molecule)
        force_field = ForceField.from_system(system, config.temperature_kelvin)
        return cls(molecule, force_field, state, system_xml)

    @classmethod
    def from_state(cls, config: TargetConfig, state: Mapping[str, Any]) -> "Target":
        """Build what `to_state` described, where the files of the configuration are absent.

        Raises: InputError: as for `from_config`.
        """
        from bnce_dist.chem.topology_file import system_from_xml

        molecule = Molecule.from_state(state["molecule"])
        system = (
            build_system(molecule, config.force_field)
            if state["system_xml"] is None
            else system_from_xml(state["system_xml"])
        )
        force_field = ForceField.from_system(system, config.temperature_kelvin)
        return cls(molecule, force_field, _state(molecule, config), state["system_xml"])

    def to_state(self) -> dict[str, Any]:
        """Return plain types that say what the files of a configuration do.

        The molecule is in it with its structure, which shows the numbering of its hydrogens.
        """
        return {"system_xml": self.system_xml, "molecule": self.molecule.to_state()}

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
        force_field = ForceField.from_system(system, temperature_kelvin)
        return replace(self, force_field=force_field, system_xml=None)

    def with_xtb(self) -> "Target":
        """Return the same molecule and temperature in GFN2-xTB with implicit water.

        Its energies take some ten milliseconds each.

        Raises: InputError: tblite is not installed, or the molecule's charge is not clear.
        """
        if self.system_xml is not None:
            _require_clear_charge(self.molecule, self.system_xml)
        temperature_kelvin = self.force_field.temperature_kelvin
        return replace(self, force_field=XTBPotential(self.molecule, temperature_kelvin))

    def long_reference(self, config: TargetConfig) -> LongReference | None:
        """Return the committed reference of the target, if there is one.

        Those are of peptides in OpenMM's force fields, and of intervals of the first phi.

        Args:
            config: What the target was built from.
        """
        if config.topology is not None or config.torsions:
            return None
        return find_long_reference(
            self.molecule.identity, config.force_field, config.temperature_kelvin, self.state
        )

    def in_state(self, positions_nm: Tensor) -> NDArray[np.bool_]:
        """Return which conformations are in the state, ``(samples,)``.

        Args:
            positions_nm: ``(samples, atoms, 3)`` [nm].
        """
        phi, psi = (dihedral(positions_nm, t) for t in (self.molecule.phi, self.molecule.psi))
        return self.state.contains(phi.numpy(), psi.numpy())


def _require_clear_charge(molecule: Molecule, system_xml: str) -> None:
    """Refuse a molecule with other charged groups than peptides have.

    Raises: InputError: its formal charges do not add up to the System's.
    """
    from bnce_dist.chem.topology_file import system_from_xml, total_charge

    charge, formal = total_charge(system_from_xml(system_xml)), sum(molecule.formal_charges)
    if round(charge) != round(formal):
        raise InputError(
            f"charge of {molecule.name} in xTB",
            expected=f"{round(charge):+d}, to which the charges of its parameters add up",
            got=f"{round(formal):+d} from its bonds, which tell the charged groups of peptides",
            remedy="keep a force field as the potential",
        )


def _state(molecule: Molecule, config: TargetConfig) -> State:
    if config.state is None:
        return State.from_interval(config.state_phi_min, config.state_phi_max)
    return State.from_text(molecule, config.state)


def _with_torsions(molecule: Molecule, names: Sequence[str]) -> Molecule:
    """Return the molecule with the torsions that are named in the places of phi and psi."""
    if not names:
        return molecule
    torsions = [find_torsion(molecule, name) for name in names]
    if len(torsions) == 1:
        torsions.append(find_companion(molecule, torsions[0]))
    if len({frozenset(torsion[1:3]) for torsion in torsions}) == 1:
        raise InputError(
            "target.torsions", expected="torsions about two bonds", got=", ".join(names),
            remedy="name one of them alone",
        )  # fmt: skip
    return replace(molecule, torsions=tuple(torsions))
