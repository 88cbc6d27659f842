"""Reading an OpenMM System into the terms of the batched force field."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import openmm
import torch
from openmm import unit
from torch import Tensor

from bnce_dist.chem.potentials.bonded import (
    HarmonicAngles,
    HarmonicBonds,
    PairVectors,
    PeriodicTorsions,
    TorsionTerm,
)
from bnce_dist.chem.potentials.nonbonded import (
    OFFSET_NM,
    BornParameters,
    CoulombLennardJones,
    GeneralizedBorn,
)
from bnce_dist.core.errors import InputError

# OpenMM's own constants; its GB expressions round the Coulomb constant differently.
_COULOMB = 138.93545764438198
# The expressions of implicit/obc1.xml and implicit/obc2.xml without spaces and constants.
_INTEGRAL = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)"
    ";U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
)
_RADIUS = "1/(1/or-tanh({})/radius);psi=I*or;radius=or+offset"
_OBC1 = (0.8, 0.0, 2.909125)
_OBC2 = (1.0, 0.8, 4.85)
_TANH_COEFFICIENTS = {
    _RADIUS.format("0.8*psi+2.909125*psi^3"): _OBC1,
    _RADIUS.format("psi-0.8*psi^2+4.85*psi^3"): _OBC2,
}
_SELF = "-0.5*138.935485*(1/soluteDielectric-1/solventDielectric)*charge^2/B"
_PAIR = (
    "-138.935485*(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f"
    ";f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"
)
_SURFACE = "28.3919551*(radius+0.14)^2*(radius/B)^6;radius=or+offset"
_CONSTANT = re.compile(r";(solventDielectric|soluteDielectric|kappa|offset)=([\d.e+-]+)")


def bonded_terms(system: openmm.System) -> list[torch.nn.Module]:
    """Return the bonded terms of a System."""
    num_atoms = system.getNumParticles()
    terms: list[torch.nn.Module] = []
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            bonds = [force.getBondParameters(i) for i in range(force.getNumBonds())]
            length, stiffness = _columns(bond[2:] for bond in bonds)
            atoms = [(i, j) for i, j, _, _ in bonds]
            terms.append(HarmonicBonds(atoms, length, stiffness, num_atoms=num_atoms))
        elif isinstance(force, openmm.HarmonicAngleForce):
            angles = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
            rest, stiffness = _columns(angle[3:] for angle in angles)
            triples = [(i, j, k) for i, j, k, _, _ in angles]
            terms.append(HarmonicAngles(triples, rest, stiffness, num_atoms=num_atoms))
        elif isinstance(force, openmm.PeriodicTorsionForce):
            torsions = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
            fourier = [
                TorsionTerm((i, j, k, end), order, phase._value, amplitude._value)
                for i, j, k, end, order, phase, amplitude in torsions
            ]
            terms.append(PeriodicTorsions(fourier, num_atoms=num_atoms))
    return terms


def pair_terms(system: openmm.System) -> tuple[PairVectors, list[torch.nn.Module]]:
    """Return the vectors of all atom pairs of a System and the terms that depend on them."""
    num_atoms = system.getNumParticles()
    pairs = list(itertools.combinations(range(num_atoms), 2))
    vectors = PairVectors(pairs, num_atoms)
    terms: list[torch.nn.Module] = []
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            terms.append(_coulomb_lennard_jones(force, pairs))
        elif isinstance(force, openmm.CustomGBForce):
            parameters = _custom_born_parameters(force)
            terms.append(GeneralizedBorn(parameters, vectors.first, vectors.second))
        elif isinstance(force, openmm.GBSAOBCForce):
            parameters = _obc_parameters(force)
            terms.append(GeneralizedBorn(parameters, vectors.first, vectors.second))
    return vectors, terms


def require_supported(system: openmm.System) -> None:
    """Check that every force of a System is one this module evaluates exactly.

    Raises: InputError: an unknown force, a cutoff, constraints or virtual sites.
    """
    known = (
        openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce,
        openmm.NonbondedForce, openmm.CustomGBForce, openmm.GBSAOBCForce, openmm.CMMotionRemover,
    )  # fmt: skip
    for force in system.getForces():
        name = type(force).__name__
        if not isinstance(force, known):
            raise _unsupported(name, "bonds, angles, torsions, nonbonded or OBC implicit solvent")
        method = getattr(force, "getNonbondedMethod", lambda: 0)()
        if method != openmm.NonbondedForce.NoCutoff:
            raise _unsupported(f"{name} with a cutoff", "no cutoff (nonbondedMethod=NoCutoff)")
    if system.getNumConstraints():
        raise _unsupported(f"{system.getNumConstraints()} constraints", "none (constraints=None)")
    if any(system.isVirtualSite(i) for i in range(system.getNumParticles())):
        raise _unsupported("virtual sites", "atoms only")


def _coulomb_lennard_jones(
    force: openmm.NonbondedForce, pairs: list[tuple[int, int]]
) -> CoulombLennardJones:
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, sigma, epsilon = _columns(particles)
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    charge_product = charge[first] * charge[second]
    pair_sigma = (sigma[first] + sigma[second]) / 2
    pair_epsilon = (epsilon[first] * epsilon[second]).sqrt()
    row = {pair: index for index, pair in enumerate(pairs)}
    for index in range(force.getNumExceptions()):
        i, j, *values = force.getExceptionParameters(index)
        special = row[min(i, j), max(i, j)]
        charge_product[special], pair_sigma[special], pair_epsilon[special] = (
            value._value for value in values
        )
    c6 = 4 * pair_epsilon * pair_sigma**6
    return CoulombLennardJones(_COULOMB * charge_product, c6, c6 * pair_sigma**6)


def _custom_born_parameters(force: openmm.CustomGBForce) -> BornParameters:
    """Read the parameters of the OBC expressions, which have to be exactly the known ones."""
    values = [force.getComputedValueParameters(i)[1] for i in range(force.getNumComputedValues())]
    energies = [force.getEnergyTermParameters(i)[0] for i in range(force.getNumEnergyTerms())]
    texts = [text.replace(" ", "") for text in (*values, *energies)]
    expressions = [_CONSTANT.sub("", text) for text in texts]
    constants = dict(_CONSTANT.findall(";".join(texts)))
    if (
        expressions[:1] != [_INTEGRAL]
        or expressions[1] not in _TANH_COEFFICIENTS
        or not {_SELF, _PAIR} <= set(expressions[2:]) <= {_SELF, _PAIR, _SURFACE}
        or not math.isclose(float(constants["offset"]), OFFSET_NM)
    ):
        raise _unsupported("a CustomGBForce with other expressions", "implicit/obc1 or obc2")
    dielectric = 1 / float(constants["soluteDielectric"]) - 1 / float(
        constants["solventDielectric"]
    )
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, offset_radius, scaled_radius = torch.tensor(particles, dtype=torch.float64).T
    return BornParameters(
        charge=charge,
        radius_nm=offset_radius + OFFSET_NM,
        scale=scaled_radius / offset_radius,
        tanh_coefficients=_TANH_COEFFICIENTS[expressions[1]],
        coulomb_constant=138.935485 * dielectric,
        surface_tension=28.3919551 if _SURFACE in expressions else 0.0,
        fills_engulfed=False,
    )


def _obc_parameters(force: openmm.GBSAOBCForce) -> BornParameters:
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, radius, scale = _columns(particles)
    dielectric = 1 / force.getSoluteDielectric() - 1 / force.getSolventDielectric()
    return BornParameters(
        charge=charge,
        radius_nm=radius,
        scale=scale,
        tanh_coefficients=_OBC2,
        coulomb_constant=_COULOMB * dielectric,
        surface_tension=4 * math.pi * force.getSurfaceAreaEnergy()._value,
        fills_engulfed=True,
    )


def _columns(rows: Iterable[Sequence[Any]]) -> list[Tensor]:
    """Return one float64 vector per column, in OpenMM's units: nm, rad, kJ/mol, e."""
    values = [[entry._value if unit.is_quantity(entry) else entry for entry in row] for row in rows]
    return list(torch.tensor(values, dtype=torch.float64).T)


def _unsupported(got: str, expected: str) -> InputError:
    return InputError(
        "force field", expected=expected, got=got,
        remedy="use amber14-all, amber96 or amber99sbildn with implicit/obc1 or implicit/obc2",
    )  # fmt: skip
