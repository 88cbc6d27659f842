"""One molecule in the files of four programs: their energies against OpenMM and plain sums."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from scipy import constants

from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.chem.topology_file import ImplicitSolvent, read_molecule
from bnce_dist.core.errors import InputError
from tests.chem.molecule_files import (
    WRITERS,
    Files,
    write_crd,
    write_gro,
    write_inpcrd,
    write_openmm,
    write_pdb,
)
from tests.chem.substances import (
    ANGLES,
    BONDS,
    CHARGE,
    COULOMB_14,
    KCAL,
    LENNARD_JONES,
    LENNARD_JONES_14,
    TORSIONS,
    Substance,
    alkane,
    system_of,
    with_water,
)

BUTANE = alkane(4)
# e^2 N_A / (4 pi epsilon_0) [kJ nm/mol/e^2].
COULOMB = constants.e**2 * constants.N_A / (4 * math.pi * constants.epsilon_0) * 1e6
SOLVENTS: tuple[ImplicitSolvent, ...] = ("HCT", "OBC1", "OBC2", "GBn", "GBn2")


def strained(count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 14, 3, generator=generator, dtype=torch.float64)
    return torch.from_numpy(BUTANE.positions_nm) + 0.02 * noise


def read(files: Files, **options: Any) -> openmm.System:
    return read_molecule(*files[:2], parameters=files.parameters, **options)[1]


def refusal(files: Files, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        read(files, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def energy_kj_mol(positions_nm: np.ndarray) -> float:
    """Sum the terms of butane one by one, in the units of their parameters."""
    x = 10 * positions_nm
    kcal = 0.0
    for i, j in BUTANE.bonds:
        stiffness, length = BUTANE.lookup(BONDS, (i, j))
        kcal += stiffness * (math.dist(x[i], x[j]) - length) ** 2
    for i, j, k in BUTANE.angles:
        stiffness, rest = BUTANE.lookup(ANGLES, (i, j, k))
        kcal += stiffness * (angle(x[i] - x[j], x[k] - x[j]) - math.radians(rest)) ** 2
    for i, j, k, end in BUTANE.torsions:
        # All phases are 0 or 180 degrees: the sign of the torsion does not matter.
        first, second = np.cross(x[j] - x[i], x[k] - x[j]), np.cross(x[k] - x[j], x[end] - x[k])
        for height, order, phase in BUTANE.lookup(TORSIONS, (i, j, k, end)):
            kcal += height * (1 + math.cos(order * angle(first, second) - math.radians(phase)))
    charge = [CHARGE[kind] for kind in BUTANE.types]
    radius, depth = zip(*(LENNARD_JONES[kind] for kind in BUTANE.types), strict=True)
    for i, j in itertools.combinations(range(14), 2):
        if (i, j) not in BUTANE.excluded:
            is_14 = (i, j) in BUTANE.pairs_14
            distance = math.dist(x[i], x[j])
            ratio = ((radius[i] + radius[j]) / distance) ** 6
            well = math.sqrt(depth[i] * depth[j]) * (ratio**2 - 2 * ratio)
            kcal += well * (LENNARD_JONES_14 if is_14 else 1)
            coulomb = COULOMB / KCAL * 10 * charge[i] * charge[j] / distance
            kcal += coulomb * (COULOMB_14 if is_14 else 1)
    return KCAL * kcal


def angle(first: np.ndarray, second: np.ndarray) -> float:
    return math.acos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize("kind", WRITERS)
def test_energies_are_the_sums_of_the_parameters_and_openmms(kind: str, tmp_path: Path) -> None:
    files = WRITERS[kind](tmp_path, BUTANE)
    molecule, system = read_molecule(*files[:2], parameters=files.parameters)
    assert molecule.name == files.topology.stem
    assert molecule.atom_names == BUTANE.names
    assert list(molecule.elements) == BUTANE.elements
    assert set(molecule.bonds) == set(BUTANE.bonds)
    assert molecule.chirality_centres == ()
    force_field = ForceField.from_system(system, 300.0)
    energy, forces = force_field.energy_and_forces_kj_mol(strained())
    sums = [energy_kj_mol(positions) for positions in strained().numpy()]
    np.testing.assert_allclose(energy, sums, rtol=1e-6)
    oracle_energy, oracle_forces = OpenMMPotential(system, 300.0).energy_and_forces_kj_mol(
        strained()
    )
    torch.testing.assert_close(energy, oracle_energy, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(forces, oracle_forces, rtol=1e-9, atol=1e-5)
    _, left = force_field.energy_and_forces_kj_mol(torch.from_numpy(molecule.positions_nm)[None])
    assert left.square().mean().sqrt() < 2.0  # kJ/mol/nm; the file's structure has hundreds


@pytest.mark.filterwarnings("ignore:Non-optimal GB parameters")
@pytest.mark.parametrize("solvent", SOLVENTS)
@pytest.mark.parametrize("kind", ["prmtop", "psf"])
def test_implicit_solvents_are_openmms(kind: str, solvent: ImplicitSolvent, tmp_path: Path) -> None:
    files = WRITERS[kind](tmp_path, BUTANE)
    force_field = ForceField.from_system(read(files, implicit_solvent=solvent), 300.0)
    options = {"implicitSolvent": getattr(app, solvent), "nonbondedMethod": app.NoCutoff}
    if kind == "prmtop":
        expected = app.AmberPrmtopFile(str(files.topology)).createSystem(**options)
    else:
        parameters = app.CharmmParameterSet(*map(str, files.parameters))
        expected = app.CharmmPsfFile(str(files.topology)).createSystem(parameters, **options)
    energy, forces = force_field.energy_and_forces_kj_mol(strained(4))
    oracle_energy, oracle_forces = OpenMMPotential(expected, 300.0).energy_and_forces_kj_mol(
        strained(4)
    )
    assert (energy - oracle_energy).abs().max() < 1e-3 * force_field.kt_kj_mol
    assert (forces - oracle_forces).norm() < 1e-4 * oracle_forces.norm()
    vacuum = [energy_kj_mol(positions) for positions in strained(4).numpy()]
    assert (energy - torch.tensor(vacuum)).abs().min() > 0.1  # There is a solvent.


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".gro", ".rst7", ".crd"])
def test_every_kind_of_structure_leads_to_the_same_minimum(suffix: str, tmp_path: Path) -> None:
    files = WRITERS["prmtop"](tmp_path, BUTANE)
    reference, _ = read_molecule(*files[:2])
    path = tmp_path / f"structure{suffix}"
    writers = {".pdb": write_pdb, ".gro": write_gro, ".rst7": write_inpcrd, ".crd": write_crd}
    writers.get(suffix, write_cif)(path, BUTANE)
    molecule, system = read_molecule(files.topology, path)
    assert molecule == reference
    both = torch.from_numpy(np.stack([molecule.positions_nm, reference.positions_nm]))
    energy = ForceField.from_system(system, 300.0).potential_energy_kj_mol(both)
    assert (energy[0] - energy[1]).abs() < 0.01
    assert (torch.pdist(both[0]) - torch.pdist(both[1])).abs().max() < 1e-3


def write_cif(path: Path, substance: Substance) -> Path:
    with path.open("w") as stream:
        app.PDBxFile.writeFile(substance.topology(), substance.positions_nm * 10, stream)
    return path


def test_bonds_are_the_systems_where_the_structure_has_none(tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    lines = files.coordinates.read_text().splitlines(keepends=True)
    files.coordinates.write_text("".join(x for x in lines if not x.startswith("CONECT")))
    molecule, _ = read_molecule(*files[:2])
    assert set(molecule.bonds) == set(BUTANE.bonds)


def test_hydrogens_of_three_times_their_mass_are_the_same_molecule(tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    system = system_of(BUTANE)
    for carbon, hydrogen in (bond for bond in BUTANE.bonds if bond[1] > 3):
        system.setParticleMass(hydrogen, 3.024)
        mass = system.getParticleMass(carbon)._value
        system.setParticleMass(carbon, mass - 3.024 + 1.008)
    files.topology.write_text(openmm.XmlSerializer.serialize(system))
    assert read(files).getNumParticles() == 14


@pytest.mark.parametrize(
    ("kind", "part"),
    [*itertools.product(WRITERS, ("topology", "coordinates")), ("psf", "parameters")],
)
def test_files_that_are_absent_empty_cut_or_another_are_named(
    kind: str, part: str, tmp_path: Path
) -> None:
    files = WRITERS[kind](tmp_path, BUTANE)
    path = files.parameters[0] if part == "parameters" else getattr(files, part)
    lines = path.read_text().splitlines(keepends=True)
    for share in (0.45, 0.2, 0.0):
        path.write_text("".join(lines[: int(share * len(lines))]))
        assert f"target.{part} {path}: expected" in refusal(files), share
    path.write_text("A recipe of bread:\n[ flour ]\nwater, salt and time\n")
    assert f"target.{part} {path}: expected" in refusal(files)
    path.unlink()
    assert f"target.{part} {path}: expected" in refusal(files)


def test_a_psf_that_ends_between_two_sections_is_refused(tmp_path: Path) -> None:
    files = WRITERS["psf"](tmp_path, BUTANE)
    whole = files.topology.read_text()
    for section in ("NATOM", "NBOND", "NTHETA", "NPHI", "NIMPHI", "NDON", "NNB", "NGRP"):
        head = whole[: whole.index(f"!{section}")].rpartition("\n")[0]
        files.topology.write_text(head + "\n")
        assert f"target.topology {files.topology}" in refusal(files), section
    files.topology.write_text(whole.replace("PSF", "PSF CMAP"))
    assert "no section !NCRTERM" in refusal(files)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4, 0.5, 0.99])
def test_a_system_that_is_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    lines = files.topology.read_text().splitlines(keepends=True)
    files.topology.write_text("".join(lines[: int(share * len(lines))]))
    assert f"target.topology {files.topology}" in refusal(files)


def test_xml_of_something_else_is_refused(tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    context = openmm.Context(system_of(BUTANE), openmm.VerletIntegrator(0.001))
    context.setPositions(BUTANE.positions_nm)
    files.topology.write_text(openmm.XmlSerializer.serialize(context.getState(positions=True)))
    assert "got an OpenMM State, not a System" in refusal(files)
    files.topology.write_text("<html><body>404</body></html>")
    assert f"target.topology {files.topology}" in refusal(files)


def test_parameters_that_are_not_numbers_are_refused_before_anything_is_minimised(
    tmp_path: Path,
) -> None:
    files = write_openmm(tmp_path, BUTANE)
    text = files.topology.read_text()
    files.topology.write_text(re.sub(r'k="[0-9.]+"', 'k="nan"', text, count=1))
    assert "expected a finite energy, got nan kJ/mol" in refusal(files)


def other_order(first: int, second: int) -> Callable[[Substance], Substance]:
    order = list(range(14))
    order[first], order[second] = second, first
    return lambda substance: substance.sorted_as(order)


MISTAKES: dict[str, tuple[Callable[[Substance], Substance], str]] = {
    "another molecule": (lambda _: alkane(3), "expected the 14 atoms of target.topology, got 11"),
    "two carbons at the end": (other_order(0, 1), "order"),
    "two carbons in the middle": (other_order(1, 2), "order"),
    "a carbon and a hydrogen": (other_order(3, 13), "order"),
    "two hydrogens": (other_order(5, 9), "order"),
    "in angstrom": (lambda s: replace(s, positions_nm=10 * s.positions_nm), "are angstrom"),
    "too small": (lambda s: replace(s, positions_nm=0.1 * s.positions_nm), "got bonds of 0.01"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("kind", [*WRITERS, "prmtop with pdb"])
def test_structures_of_something_else_are_named(kind: str, mistake: str, tmp_path: Path) -> None:
    files = WRITERS[kind.split()[0]](tmp_path, BUTANE)
    if kind == "prmtop with pdb":
        files = files._replace(coordinates=tmp_path / "structure.pdb")
    write = {".inpcrd": write_inpcrd, ".crd": write_crd, ".gro": write_gro, ".pdb": write_pdb}
    change, message = MISTAKES[mistake]
    write[files.coordinates.suffix](files.coordinates, change(BUTANE))
    refused = refusal(files)
    assert f"target.coordinates {files.coordinates}" in refused
    assert message in refused


@pytest.mark.parametrize("kind", ["prmtop", "xml"])
def test_a_structure_with_another_element_is_named(kind: str, tmp_path: Path) -> None:
    files = WRITERS[kind](tmp_path, BUTANE)._replace(coordinates=tmp_path / "fluorine.pdb")
    write_pdb(files.coordinates, replace(BUTANE, types=(*BUTANE.types[:-1], "F")))
    refused = refusal(files)
    assert f"target.coordinates {files.coordinates}: expected the atoms" in refused
    assert "got H10 as atom 14" in refused


def test_an_element_that_a_reader_guessed_wrong_is_refused(tmp_path: Path) -> None:
    # Without atomic numbers, OpenMM takes the first letter of BR1 for boron.
    files = WRITERS["top"](tmp_path, BUTANE)
    text = files.topology.read_text()
    text = text.replace("[ moleculetype ]", "br 79.904 0.0 A 0.4 1.0\n[ moleculetype ]")
    atom = re.compile(r"^14 \S+ (\d+ \S+) \S+ 14 (\S+) \S+$", flags=re.MULTILINE)
    text = atom.sub(r"14 br \1 BR1 14 \2 79.904", text)
    files.topology.write_text(text)
    refused = refusal(files)
    assert f"target.topology {files.topology}" in refused
    assert "got B of 79.9 Da as atom 14, BR1" in refused


def test_restraints_in_a_top_are_refused_unless_they_are_switched_off(tmp_path: Path) -> None:
    # Gromacs would hold the torsion at 60 degrees; OpenMM reads the file as if it did not.
    files = WRITERS["top"](tmp_path, BUTANE)
    text, restraint = files.topology.read_text(), "[ dihedral_restraints ]\n1 2 3 4 1 60 0 500\n"
    files.topology.write_text(text.replace("[ system ]", f"{restraint}[ system ]"))
    refused = refusal(files)
    assert f"target.topology {files.topology}" in refused
    assert "got a section [ dihedral_restraints ]" in refused
    off = f"#ifdef POSRES\n{restraint}#endif\n[ system ]"
    files.topology.write_text(text.replace("[ system ]", off))
    assert read(files).getNumParticles() == 14


@pytest.mark.parametrize("kind", WRITERS)
def test_positions_that_are_not_numbers_are_refused(kind: str, tmp_path: Path) -> None:
    files = WRITERS[kind](tmp_path, BUTANE)
    text = files.coordinates.read_text()
    number = re.compile(r"-?[0-9]+\.[0-9]{3,}")
    broken = number.sub(lambda match: "nan".rjust(len(match[0])), text, count=1)
    files.coordinates.write_text(broken)
    assert f"target.coordinates {files.coordinates}: expected a structure, whole" in refusal(files)


@pytest.mark.parametrize("kind", WRITERS)
def test_water_beside_the_molecule_is_refused(kind: str, tmp_path: Path) -> None:
    files = WRITERS[kind](tmp_path, with_water(BUTANE))
    refused = refusal(files)
    assert "got 17 atoms in 2 pieces" in refused
    named = files.coordinates if kind == "xml" else files.topology
    assert str(named) in refused


def test_what_a_file_cannot_be_combined_with_is_refused(tmp_path: Path) -> None:
    amber, charmm, gromacs, system = (write(tmp_path, BUTANE) for write in WRITERS.values())
    assert "target.parameters: expected the CHARMM" in refusal(charmm._replace(parameters=()))
    for files in (gromacs, system):
        assert "target.implicit_solvent" in refusal(files, implicit_solvent="OBC2")
    without_names = system._replace(coordinates=gromacs.coordinates)
    assert f"target.coordinates {gromacs.coordinates}" in refusal(without_names)
    unknown = amber._replace(coordinates=tmp_path / "butane.xyz")
    assert "butane.xyz: expected one of .pdb, .cif" in refusal(unknown)
    two = gromacs._replace(parameters=(tmp_path, tmp_path))
    assert "target.parameters: expected one folder" in refusal(two)


def test_systems_with_constraints_or_a_cutoff_have_no_batched_force_field(tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    constrained, cut = system_of(BUTANE), system_of(BUTANE)
    constrained.addConstraint(0, 4, 0.109)
    (nonbonded,) = (f for f in cut.getForces() if isinstance(f, openmm.NonbondedForce))
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    for system, message in (
        (constrained, "got 1 constraints"),
        (cut, "got NonbondedForce with a cutoff"),
    ):
        files.topology.write_text(openmm.XmlSerializer.serialize(system))
        with pytest.raises(InputError, match=message):
            ForceField.from_system(read(files), 300.0)


def test_a_system_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    files = write_openmm(tmp_path, BUTANE)
    system = system_of(BUTANE)
    force = openmm.CustomExternalForce("x")
    force.addParticle(99, [])
    system.addForce(force)
    files.topology.write_text(openmm.XmlSerializer.serialize(system))
    assert f"target.topology {files.topology}" in refusal(files)
