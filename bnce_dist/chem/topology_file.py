"""Molecules with parameters from the files of Amber, CHARMM, Gromacs and OpenMM."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit

from bnce_dist.chem.initial_structure import minimise_in
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ImplicitSolvent
from bnce_dist.chem.validation import has_the_bonds_of, require_molecules
from bnce_dist.core.errors import InputError, as_input_error

logger = logging.getLogger(__name__)

_EXPECTED = {
    "target.topology": "a prmtop, psf, top or System XML, whole and with all parameters",
    "target.coordinates": "a structure, whole",
    "target.parameters": "all parameters of the psf",
}
_SAME_DALTON = 3.5
"""Largest difference in mass between isotopes of a heavy atom with its hydrogens."""
_PASSED_OVER = (
    "position_restraints", "distance_restraints", "dihedral_restraints", "angle_restraints",
    "angle_restraints_z", "orientation_restraints", "pairs_nb", "polarization",
    "water_polarization", "thole_polarization", "intermolecular_interactions",
)  # fmt: skip
"""Sections of Gromacs that have an energy, and that OpenMM's reader does not look at."""
_WITHOUT_CUTOFF = {"nonbondedMethod": app.NoCutoff, "constraints": None, "removeCMMotion": False}


@dataclass(frozen=True)
class _Parameters:
    """What a file with parameters says.

    Args:
        system: Without a cutoff and constraints.
        topology: None where the file has no names and bonds.
    """

    system: openmm.System
    topology: app.Topology | None


@dataclass(frozen=True)
class _Structure:
    """What a file with positions says.

    Args:
        positions_nm: ``(atoms, 3)`` [nm].
        topology: None where the file has no names.
    """

    positions_nm: NDArray[np.float64]
    topology: app.Topology | None


def read_molecule(
    topology: Path,
    coordinates: Path,
    *,
    parameters: Sequence[Path] = (),
    implicit_solvent: ImplicitSolvent | None = None,
) -> tuple[Molecule, openmm.System]:
    """Read one molecule, and minimise its structure.

    The content tells the kind of ``topology``: Amber's prmtop, CHARMM's psf, Gromacs' top, or a
    System that OpenMM wrote as XML; OpenMM's readers read it.

    Args:
        topology: The file with the parameters, or with what they are of.
        coordinates: The same atoms in the same order: ``.pdb``, ``.cif``, ``.gro``, Amber's
            ``.inpcrd`` or ``.rst7``, or CHARMM's ``.crd``.
        parameters: CHARMM's parameter files, or the folder of Gromacs' included files.
        implicit_solvent: Added to a prmtop or a psf; a System holds its own.

    Returns: The molecule, in the order of the files, and its System without a cutoff.
    Raises: InputError: a file is absent, damaged or of another kind; the files are of different
        molecules, or in a different order; there is more than one molecule.
    """
    read = _kind_of(topology)
    if implicit_solvent is not None and read not in (_read_amber, _read_charmm):
        raise InputError(
            "target.implicit_solvent",
            expected="none: only a prmtop or a psf can be given one",
            got=implicit_solvent,
            remedy="leave it out, or add its force to a System and name that as target.topology",
        )
    with as_input_error(partial(_unreadable, "target.topology", topology)):
        found = read(topology, parameters, implicit_solvent)
        if not found.system.getNumParticles():
            raise ValueError("no atoms")
    structure = _read_structure(coordinates)
    names = found.topology or structure.topology
    if names is None:
        raise InputError(
            f"target.coordinates {coordinates}",
            expected="a .pdb or .cif file: a System has no names and bonds",
            got=coordinates.suffix,
            remedy="write the molecule with CONECT records",
        )
    _require_same_number(found, structure, coordinates)
    _complete_bonds(names, found.system)
    _require_elements(found, topology)
    _require_same_order(found, structure, names, coordinates)
    from_coordinates = ("target.coordinates", coordinates)
    with _about(*(("target.topology", topology) if found.topology else from_coordinates)):
        molecule = Molecule.from_topology(topology.stem, names, structure.positions_nm)
    with _about(*from_coordinates):
        require_molecules(molecule, torch.from_numpy(structure.positions_nm)[None])
    with as_input_error(partial(_unreadable, "target.topology", topology)):
        relaxed = minimise_in(found.system, structure.positions_nm)
    if not has_the_bonds_of(molecule, torch.from_numpy(relaxed)[None]).all():
        raise _misplaced(coordinates, "other bonds than these at the minimum of its energy")
    return replace(molecule, positions_nm=relaxed), found.system


def system_to_xml(system: openmm.System) -> str:
    """Return a System as OpenMM writes it."""
    return str(openmm.XmlSerializer.serialize(system))


def system_from_xml(text: str) -> openmm.System:
    """Return the System that OpenMM wrote.

    Raises: TypeError: it is something else of OpenMM's. What its parser raises: it is rubbish.
    """
    ElementTree.fromstring(text)  # OpenMM takes what there is of a file that is cut short.
    system = openmm.XmlSerializer.deserialize(text)
    if not isinstance(system, openmm.System):
        raise TypeError(f"an OpenMM {type(system).__name__}, not a System")
    return system


def total_charge(system: openmm.System) -> float:
    """Return the sum of a System's partial charges [elementary charges]."""
    charges = (
        force.getParticleParameters(index)[0]._value
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce)
        for index in range(force.getNumParticles())
    )
    return float(sum(charges))


def _kind_of(path: Path) -> Callable[[Path, Sequence[Path], ImplicitSolvent | None], _Parameters]:
    try:
        head = path.read_bytes()[:4096].decode(errors="replace").lstrip()
    except OSError as error:
        raise _unreadable("target.topology", path, error.strerror) from error
    if head.startswith(("%VERSION", "%FLAG")):
        return _read_amber
    if head.startswith("PSF"):
        return _read_charmm
    if head.startswith("<"):
        return _read_system
    if "[" in head:
        return _read_gromacs
    raise _unreadable("target.topology", path, f"a file that begins with {head[:20]!r}")


def _read_amber(path: Path, _: Sequence[Path], solvent: ImplicitSolvent | None) -> _Parameters:
    prmtop = app.AmberPrmtopFile(str(path))
    system = prmtop.createSystem(
        **_WITHOUT_CUTOFF, rigidWater=False, implicitSolvent=_openmm(solvent)
    )
    return _Parameters(system, prmtop.topology)


def _read_charmm(
    path: Path, parameters: Sequence[Path], solvent: ImplicitSolvent | None
) -> _Parameters:
    if not parameters:
        raise InputError(
            "target.parameters", expected="the CHARMM parameter files of the psf", got="none",
            remedy="name its .rtf, .prm and .str files",
        )  # fmt: skip
    psf = app.CharmmPsfFile(str(path))
    # A section that is absent is empty to OpenMM; these follow all that count.
    for section in ("!NGRP", *(["!NCRTERM"] if "CMAP" in psf.flags else [])):
        if section not in path.read_text():
            raise ValueError(f"no section {section}")
    with as_input_error(partial(_unreadable, "target.parameters", ", ".join(map(str, parameters)))):
        files = app.CharmmParameterSet(*map(str, parameters))
        system = psf.createSystem(
            files, **_WITHOUT_CUTOFF, rigidWater=False, implicitSolvent=_openmm(solvent)
        )
    return _Parameters(system, psf.topology)


class _GromacsTop(app.GromacsTopFile):
    """OpenMM's reader, which says what it would leave out."""

    def _processLine(self, line: str, file: str) -> None:
        super()._processLine(line, file)
        if self._currentCategory in _PASSED_OVER:
            raise ValueError(f"a section [ {self._currentCategory} ], which is not evaluated here")


def _read_gromacs(path: Path, parameters: Sequence[Path], _: ImplicitSolvent | None) -> _Parameters:
    if len(parameters) > 1:
        raise InputError(
            "target.parameters", expected="one folder of included files", got=len(parameters),
            remedy="name the folder that holds the force field's .ff folder",
        )  # fmt: skip
    include = str(parameters[0]) if parameters else str(path.parent)
    top = _GromacsTop(str(path), includeDir=include)
    return _Parameters(top.createSystem(**_WITHOUT_CUTOFF, rigidWater=False), top.topology)


def _read_system(path: Path, _: Sequence[Path], __: ImplicitSolvent | None) -> _Parameters:
    return _Parameters(system_from_xml(path.read_text()), None)


def _openmm(solvent: ImplicitSolvent | None) -> Any:
    return None if solvent is None else getattr(app, solvent)


def _read_structure(path: Path) -> _Structure:
    readers: dict[str, Callable[[str], Any]] = {
        ".pdb": app.PDBFile,
        ".cif": app.PDBxFile,
        ".gro": app.GromacsGroFile,
        ".inpcrd": app.AmberInpcrdFile,
        ".rst7": app.AmberInpcrdFile,
        ".crd": _read_crd,
    }
    if path.suffix.lower() not in readers:
        raise InputError.unknown(f"kind of target.coordinates {path}", path.suffix, readers)
    with as_input_error(partial(_unreadable, "target.coordinates", path)):
        content = readers[path.suffix.lower()](str(path))
        positions = np.array(content.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    if not np.isfinite(positions).all():
        raise _unreadable("target.coordinates", path, "a position that is not a number")
    return _Structure(positions, getattr(content, "topology", None))


def _read_crd(path: str) -> app.CharmmCrdFile:
    lines = [line for line in Path(path).read_text().splitlines() if line.strip()]
    if all(line.startswith("*") for line in lines[1:]):
        raise ValueError("no number of atoms")  # OpenMM would wait for it for ever.
    return app.CharmmCrdFile(path)


def _require_same_number(found: _Parameters, structure: _Structure, coordinates: Path) -> None:
    num_atoms, num_positions = found.system.getNumParticles(), len(structure.positions_nm)
    if num_atoms != num_positions:
        raise InputError(
            f"target.coordinates {coordinates}",
            expected=f"the {num_atoms} atoms of target.topology", got=num_positions,
            remedy="name files of one molecule",
        )  # fmt: skip


def _complete_bonds(topology: app.Topology, system: openmm.System) -> None:
    """Add the bonds that a System knows to a topology that has none."""
    if next(topology.bonds(), None) is not None:
        return
    logger.info("no bonds in target.coordinates: those of the System's first harmonic force")
    atoms = list(topology.atoms())
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for index in range(force.getNumBonds()):
                first, second, *_ = force.getBondParameters(index)
                topology.addBond(atoms[first], atoms[second])
            return


def _require_elements(found: _Parameters, path: Path) -> None:
    """Refuse elements, which readers may guess by names, of other masses than the System's."""
    if found.topology is None:
        return
    atom = _of_another_mass(found.system, found.topology, found.topology)
    if atom is not None:
        mass = found.system.getParticleMass(atom.index)._value
        raise InputError(
            f"target.topology {path}",
            expected="elements of the atoms' masses",
            got=f"{atom.element.symbol} of {mass:.4g} Da as atom {atom.index + 1}, {atom.name}",
            remedy="write atomic numbers into the file: of Gromacs in [ atomtypes ]",
        )


def _require_same_order(
    found: _Parameters, structure: _Structure, names: app.Topology, coordinates: Path
) -> None:
    """Refuse elements in another order than the masses of the System."""
    if structure.topology is None:
        return
    if any(atom.element is None for atom in structure.topology.atoms()):
        return
    atom = _of_another_mass(found.system, structure.topology, names)
    if atom is not None:
        raise _misplaced(coordinates, f"{atom.name} as atom {atom.index + 1}")


def _of_another_mass(
    system: openmm.System, elements: app.Topology, bonds: app.Topology
) -> app.topology.Atom | None:
    """Return the first atom whose element has another mass than the System gives it."""
    atoms = list(elements.atoms())
    system_dalton = [system.getParticleMass(i)._value for i in range(len(atoms))]
    file_dalton = [
        given if atom.element is None else atom.element.mass._value
        for given, atom in zip(system_dalton, atoms, strict=True)
    ]
    # Repartitioning moves mass to hydrogens from what they are bonded to.
    for first, second in bonds.bonds():
        for heavy, light in ((first.index, second.index), (second.index, first.index)):
            if atoms[light].element == app.element.hydrogen != atoms[heavy].element:
                for masses in (system_dalton, file_dalton):
                    masses[heavy] += masses[light]
                    masses[light] = 0.0
    for mass, here, atom in zip(system_dalton, file_dalton, atoms, strict=True):
        if abs(mass - here) > _SAME_DALTON:
            return atom
    return None


@contextmanager
def _about(setting: str, path: Path) -> Iterator[None]:
    """Name the file in a refusal of what it holds."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{setting} {path}: {error.what}",
            expected=error.expected, got=error.got, remedy=error.remedy,
        ) from error  # fmt: skip


def _misplaced(coordinates: Path, got: str) -> InputError:
    return InputError(
        f"target.coordinates {coordinates}", expected="the atoms of target.topology in its order",
        got=got, remedy="write the structure in the order of the topology",
    )  # fmt: skip


def _unreadable(setting: str, path: object, got: object) -> InputError:
    return InputError(
        f"{setting} {path}", expected=_EXPECTED[setting], got=got,
        remedy="check the path and the file",
    )  # fmt: skip
