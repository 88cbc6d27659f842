"""Reading an OpenMM System into the terms of the batched force field."""

import itertools
import math
import re

import openmm
import torch
from torch import nn

from bnce_dist.chem.potentials.bonded import Angles, Bonds, PairVectors, Quadruple, Torsions
from bnce_dist.chem.potentials.coordinate_functions import (
    FourierSeries,
    FourierTerm,
    Harmonic,
    PeriodicMap,
    RyckaertBellemans,
)
from bnce_dist.chem.potentials.custom_forces import (
    columns,
    custom_angles,
    custom_bonds,
    custom_born,
    custom_nonbonded,
    custom_torsions,
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
_BORN_PARAMETERS = ("charge", "or", "sr")
_CONSTANT = re.compile(r";(solventDielectric|soluteDielectric|kappa|offset)=([\d.e+-]+)")


def bonded_terms(system: openmm.System) -> list[nn.Module]:
    """Return the terms of bonded atoms of a System."""
    num_atoms = system.getNumParticles()
    terms: list[nn.Module] = []
    for force in system.getForces():
        match force:
            case openmm.HarmonicBondForce():
                terms.append(_harmonic_bonds(force, num_atoms))
            case openmm.HarmonicAngleForce():
                terms.append(_harmonic_angles(force, num_atoms))
            case openmm.PeriodicTorsionForce():
                terms.append(_periodic_torsions(force, num_atoms))
            case openmm.RBTorsionForce():
                terms.append(_ryckaert_bellemans(force, num_atoms))
            case openmm.CMAPTorsionForce():
                terms.extend(_periodic_maps(force, num_atoms))
            case openmm.CustomAngleForce():
                terms.append(custom_angles(force, num_atoms))
            case openmm.CustomTorsionForce():
                terms.append(custom_torsions(force, num_atoms))
    return terms


def pair_terms(system: openmm.System) -> tuple[PairVectors, list[nn.Module]]:
    """Return the vectors of all atom pairs of a System and the terms that depend on them."""
    num_atoms = system.getNumParticles()
    pairs = list(itertools.combinations(range(num_atoms), 2))
    vectors = PairVectors(pairs, num_atoms)
    terms: list[nn.Module] = []
    for force in system.getForces():
        match force:
            case openmm.NonbondedForce():
                terms.append(_coulomb_lennard_jones(force, pairs))
            case openmm.CustomBondForce():
                terms.append(custom_bonds(force, pairs))
            case openmm.CustomNonbondedForce():
                terms.append(custom_nonbonded(force, pairs))
            case openmm.GBSAOBCForce():
                parameters = _obc_parameters(force)
                terms.append(GeneralizedBorn(parameters, vectors.first, vectors.second))
            case openmm.CustomGBForce():
                known = _known_born_parameters(force)
                terms.append(
                    GeneralizedBorn(known, vectors.first, vectors.second)
                    if known
                    else custom_born(force, pairs)
                )
    return vectors, terms


_SUPPORTED = (
    openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce,
    openmm.RBTorsionForce, openmm.CMAPTorsionForce, openmm.NonbondedForce,
    openmm.CustomBondForce, openmm.CustomAngleForce, openmm.CustomTorsionForce,
    openmm.CustomNonbondedForce, openmm.CustomGBForce, openmm.GBSAOBCForce,
    openmm.CMMotionRemover,
)  # fmt: skip


def require_supported(system: openmm.System) -> None:
    """Check that every force of a System is one this module evaluates exactly.

    Raises: InputError: an unknown force, a cutoff, periodic boundaries, parameter offsets,
        constraints or virtual sites.
    """
    if system.getNumConstraints():
        raise _unsupported(
            f"{system.getNumConstraints()} constraints",
            "none",
            "create the System with constraints=None and rigidWater=False",
        )
    if any(system.isVirtualSite(i) for i in range(system.getNumParticles())):
        raise _unsupported("virtual sites", "atoms only", "use a force field without extra sites")
    unknown = [force for force in system.getForces() if not isinstance(force, _SUPPORTED)]
    if unknown:
        raise _unsupported(
            ", ".join(dict.fromkeys(type(force).__name__ for force in unknown)),
            "forces among " + ", ".join(kind.__name__ for kind in _SUPPORTED),
            "use a fixed-charge force field such as amber14-all",
        )
    for force in system.getForces():
        _require_isolated(force)


def _require_isolated(force: openmm.Force) -> None:
    name = type(force).__name__
    method = getattr(force, "getNonbondedMethod", lambda: 0)()
    if method != openmm.NonbondedForce.NoCutoff:
        raise _unsupported(
            f"{name} with a cutoff",
            "no cutoff",
            "create the System with nonbondedMethod=NoCutoff",
        )
    if force.usesPeriodicBoundaryConditions():
        raise _unsupported(
            f"{name} with periodic boundaries",
            "none",
            "call setUsesPeriodicBoundaryConditions(False)",
        )
    if isinstance(force, openmm.NonbondedForce) and (
        force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets()
    ):
        raise _unsupported(
            f"{name} with parameter offsets",
            "none",
            "set the parameters to the values they are to have",
        )


def _harmonic_bonds(force: openmm.HarmonicBondForce, num_atoms: int) -> Bonds:
    bonds = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    length, stiffness = columns((bond[2:] for bond in bonds), 2)
    atoms = [(i, j) for i, j, _, _ in bonds]
    return Bonds(atoms, Harmonic(length, stiffness), num_atoms=num_atoms)


def _harmonic_angles(force: openmm.HarmonicAngleForce, num_atoms: int) -> Angles:
    angles = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
    rest, stiffness = columns((angle[3:] for angle in angles), 2)
    triples = [(i, j, k) for i, j, k, _, _ in angles]
    return Angles(triples, Harmonic(rest, stiffness), num_atoms=num_atoms)


def _periodic_torsions(force: openmm.PeriodicTorsionForce, num_atoms: int) -> Torsions:
    torsions = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    terms = [
        FourierTerm((i, j, k, end), order, phase._value, amplitude._value)
        for i, j, k, end, order, phase, amplitude in torsions
    ]
    for term in terms:
        if term.periodicity < 1:
            raise _unsupported(
                f"a torsion of periodicity {term.periodicity}",
                "periodicities of 1 or more, as OpenMM does",
                "leave out torsions that cost the same at every angle",
            )
    quadruples = list(dict.fromkeys(term.atoms for term in terms))
    return Torsions(quadruples, FourierSeries(terms, quadruples), num_atoms=num_atoms)


def _ryckaert_bellemans(force: openmm.RBTorsionForce, num_atoms: int) -> Torsions:
    torsions = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    coefficients = torch.stack(columns((torsion[4:] for torsion in torsions), 6))
    quadruples = [(i, j, k, end) for i, j, k, end, *_ in torsions]
    return Torsions(quadruples, RyckaertBellemans(coefficients), num_atoms=num_atoms)


def _periodic_maps(force: openmm.CMAPTorsionForce, num_atoms: int) -> list[Torsions]:
    """Return a term for each size of maps that occurs."""
    torsions = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    maps = {}
    for index in {torsion[0] for torsion in torsions}:
        size, energies = force.getMapParameters(index)
        (values,) = columns(([energy] for energy in energies), 1)
        maps[index] = values.reshape(size, size).T  # OpenMM's first torsion varies fastest
    terms = []
    for size in {len(grid) for grid in maps.values()}:
        used = [index for index, grid in maps.items() if len(grid) == size]
        mine = [torsion for torsion in torsions if torsion[0] in used]
        firsts: list[Quadruple] = [(i, j, k, end) for _, i, j, k, end, *_ in mine]
        seconds: list[Quadruple] = [(i, j, k, end) for *_, i, j, k, end in mine]
        which = torch.tensor([used.index(torsion[0]) for torsion in mine])
        energy = PeriodicMap(torch.stack([maps[index] for index in used]), which)
        terms.append(Torsions(firsts + seconds, energy, num_atoms=num_atoms))
    return terms


def _coulomb_lennard_jones(
    force: openmm.NonbondedForce, pairs: list[tuple[int, int]]
) -> CoulombLennardJones:
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, sigma, epsilon = columns(particles)
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


def _known_born_parameters(force: openmm.CustomGBForce) -> BornParameters | None:
    """Return the parameters of the OBC expressions if these are exactly the known ones."""
    values = [force.getComputedValueParameters(i)[1] for i in range(force.getNumComputedValues())]
    energies = [force.getEnergyTermParameters(i)[0] for i in range(force.getNumEnergyTerms())]
    texts = [text.replace(" ", "") for text in (*values, *energies)]
    integral, radius, *terms = [*(_CONSTANT.sub("", text) for text in texts), "", ""]
    constants = dict(_CONSTANT.findall(";".join(texts)))
    count = force.getNumPerParticleParameters()
    names = tuple(force.getPerParticleParameterName(i) for i in range(count))
    if (
        integral != _INTEGRAL
        or radius not in _TANH_COEFFICIENTS
        or not {_SELF, _PAIR} <= set(terms) <= {_SELF, _PAIR, _SURFACE, ""}
        or not math.isclose(float(constants.get("offset", 0)), OFFSET_NM)
        or force.getNumExclusions()
        or force.getNumGlobalParameters()
        or names != _BORN_PARAMETERS
    ):
        return None
    dielectric = 1 / float(constants["soluteDielectric"]) - 1 / float(
        constants["solventDielectric"]
    )
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, offset_radius, scaled_radius = torch.tensor(particles, dtype=torch.float64).T
    return BornParameters(
        charge=charge,
        radius_nm=offset_radius + OFFSET_NM,
        scale=scaled_radius / offset_radius,
        tanh_coefficients=_TANH_COEFFICIENTS[radius],
        coulomb_constant=138.935485 * dielectric,
        surface_tension=28.3919551 if _SURFACE in terms else 0.0,
        fills_engulfed=False,
    )


def _obc_parameters(force: openmm.GBSAOBCForce) -> BornParameters:
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, radius, scale = columns(particles)
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


def _unsupported(got: str, expected: str, remedy: str) -> InputError:
    return InputError("force field", expected=expected, got=got, remedy=remedy)
