"""A relaxed structure from nothing but the molecular graph.

Random positions are pulled together by the bonded terms, with the handedness of every centre
and the trans peptide bonds imposed, and then relaxed in the full force field. A run that ends
in a knot (a bond through a ring, a wrong centre) is discarded and another one started.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app

from bnce_dist.chem.geometry import dihedral, signed_volume
from bnce_dist.core.errors import InputError

Quadruple = tuple[int, int, int, int]
Positions = NDArray[np.float64]

_FORCE_FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc1.xml")
_NUM_ATTEMPTS = 50
# A tetrahedral C(N)(C)(C) centre spans 0.0026 nm^3; below this the restraint pushes.
_TARGET_VOLUME_NM3 = 0.0025
_MAX_BOND_STRAIN_NM = 0.015
# A hydrogen that is caught between two oxygens bends their angle by 50 degrees.
_MAX_ANGLE_STRAIN = math.radians(30)
_BONDED = (openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce)


def build_positions(
    topology: app.Topology, chirality_centres: Sequence[Quadruple], omegas: Sequence[Quadruple]
) -> Positions:
    """Return relaxed positions; the same topology always gives the same ones.

    Args:
        topology: The molecule.
        chirality_centres: ``(c, a, b, d)`` of each centre, of positive signed volume.
        omegas: Torsions of the peptide bonds, made trans.

    Returns: ``(atoms, 3)`` [nm].
    Raises: InputError: no attempt gave a sound structure.
    """
    full = _create_system(topology)
    bonded = _without_nonbonded(_create_system(topology))
    for system in (full, bonded):
        system.addForce(_chirality_restraint(chirality_centres))
        system.addForce(_trans_restraint(omegas))
    for seed in range(_NUM_ATTEMPTS):
        start = np.random.default_rng(seed).normal(scale=0.3, size=(full.getNumParticles(), 3))
        folded = _minimise(bonded, start, tolerance=100.0)
        relaxed = _minimise(full, folded, tolerance=100.0)
        # A centre whose handedness is held by force alone turns over when it is released.
        if _angle_strain(full, relaxed) > _MAX_ANGLE_STRAIN:
            continue
        positions = minimise(topology, relaxed)
        if _is_sound(full, positions, chirality_centres, omegas):
            return positions - positions.mean(0)
    raise InputError(
        "molecule", expected=f"a sound structure within {_NUM_ATTEMPTS} attempts", got="none",
        remedy="give a PDB file with a structure instead of a sequence",
    )  # fmt: skip


def minimise(topology: app.Topology, positions_nm: Positions) -> Positions:
    """Return the local minimum of the potential energy next to ``positions_nm``."""
    return minimise_in(_create_system(topology), positions_nm)


def minimise_in(system: openmm.System, positions_nm: Positions) -> Positions:
    """Return the local minimum of a System's potential energy next to ``positions_nm``.

    Raises: InputError: the energy there is not finite.
    """
    return _minimise(system, positions_nm, tolerance=1.0)


@functools.cache
def _force_field() -> app.ForceField:
    return app.ForceField(*_FORCE_FIELD)


def _create_system(topology: app.Topology) -> openmm.System:
    return _force_field().createSystem(topology, nonbondedMethod=app.NoCutoff)


def _without_nonbonded(system: openmm.System) -> openmm.System:
    for index in reversed(range(system.getNumForces())):
        if not isinstance(system.getForce(index), _BONDED):
            system.removeForce(index)
    return system


def _minimise(system: openmm.System, positions_nm: Positions, *, tolerance: float) -> Positions:
    """Minimise until the root-mean-square force is below ``tolerance`` [kJ/mol/nm].

    Raises: InputError: there is no energy to be lowered, at which OpenMM would go on for ever.
    """
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions_nm)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    if not math.isfinite(energy):
        raise InputError(
            "structure", expected="a finite energy", got=f"{energy} kJ/mol",
            remedy="look for parameters that are not numbers, and for atoms in one place",
        )  # fmt: skip
    openmm.LocalEnergyMinimizer.minimize(context, tolerance)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def _chirality_restraint(centres: Sequence[Quadruple]) -> openmm.CustomCompoundBondForce:
    force = openmm.CustomCompoundBondForce(
        4,
        f"1e8*min(0, volume-{_TARGET_VOLUME_NM3})^2;"
        "volume=ax*(by*dz-bz*dy)+ay*(bz*dx-bx*dz)+az*(bx*dy-by*dx);"
        "ax=x2-x1; ay=y2-y1; az=z2-z1; bx=x3-x1; by=y3-y1; bz=z3-z1; dx=x4-x1; dy=y4-y1; dz=z4-z1",
    )
    for centre in centres:
        force.addBond(centre, [])
    return force


def _trans_restraint(omegas: Sequence[Quadruple]) -> openmm.CustomTorsionForce:
    force = openmm.CustomTorsionForce("100*(1+cos(theta))")
    for omega in omegas:
        force.addTorsion(*omega, [])
    return force


def _is_sound(
    system: openmm.System,
    positions_nm: Positions,
    chirality_centres: Sequence[Quadruple],
    omegas: Sequence[Quadruple],
) -> bool:
    positions = torch.from_numpy(positions_nm)
    left_handed = all(signed_volume(positions, centre) > 0 for centre in chirality_centres)
    trans = all(dihedral(positions, omega).abs() > 0.75 * math.pi for omega in omegas)
    return (
        left_handed
        and trans
        and _bond_strain_nm(system, positions_nm) < _MAX_BOND_STRAIN_NM
        and _angle_strain(system, positions_nm) < _MAX_ANGLE_STRAIN
    )


def _bond_strain_nm(system: openmm.System, positions_nm: Positions) -> float:
    """Return the largest deviation of a bond from its equilibrium length [nm]."""
    bonds = next(f for f in system.getForces() if isinstance(f, openmm.HarmonicBondForce))
    strains = [0.0]
    for index in range(bonds.getNumBonds()):
        i, j, length, _ = bonds.getBondParameters(index)
        strains.append(abs(np.linalg.norm(positions_nm[i] - positions_nm[j]) - length._value))
    return max(strains)


def _angle_strain(system: openmm.System, positions_nm: Positions) -> float:
    """Return the largest deviation of an angle from its equilibrium [rad]."""
    angles = next(f for f in system.getForces() if isinstance(f, openmm.HarmonicAngleForce))
    strains = [0.0]
    for index in range(angles.getNumAngles()):
        i, j, k, equilibrium, _ = angles.getAngleParameters(index)
        one, other = positions_nm[i] - positions_nm[j], positions_nm[k] - positions_nm[j]
        angle = math.atan2(float(np.linalg.norm(np.cross(one, other))), float(one @ other))
        strains.append(abs(angle - equilibrium._value))
    return max(strains)
