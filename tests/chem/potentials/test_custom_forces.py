"""Each kind of force alone, on atoms scattered at random, against OpenMM's Reference platform."""

import itertools
import math
from collections.abc import Callable

import openmm
import pytest
import torch
from torch import Tensor

from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.core.errors import InputError

NUM_ATOMS = 8
QUADRUPLES = [(0, 1, 2, 3), (4, 5, 6, 7), (1, 2, 3, 4), (7, 0, 5, 2)]


def periodic_torsions() -> openmm.Force:
    force = openmm.PeriodicTorsionForce()
    for index, atoms in enumerate(QUADRUPLES):
        force.addTorsion(*atoms, 1 + index % 3, 0.7 * index, 3.0 + index)
    return force


def ryckaert_bellemans() -> openmm.Force:
    force = openmm.RBTorsionForce()
    for index, atoms in enumerate(QUADRUPLES):
        force.addTorsion(*atoms, 1.0, -2.0, 0.5, 4.0, -0.3 * index, 1.5)
    return force


def torsion_maps() -> openmm.Force:
    force = openmm.CMAPTorsionForce()
    generator = torch.Generator().manual_seed(0)
    for size in (6, 9, 6):
        force.addMap(size, (5 * torch.randn(size * size, generator=generator)).tolist())
    for index, (first, second) in enumerate(itertools.pairwise(QUADRUPLES)):
        force.addTorsion(index, *first, *second)
    return force


def custom_bonds() -> openmm.Force:
    force = openmm.CustomBondForce("scale*k*(1-exp(-2*(r-r0)))^2 + 1/r^6")
    force.addGlobalParameter("scale", 1.5)
    for name in ("k", "r0"):
        force.addPerBondParameter(name)
    for index, (i, j) in enumerate([(0, 1), (5, 2), (1, 0), (6, 7)]):
        force.addBond(i, j, [10.0 + index, 0.1 * index])
    return force


def custom_angles() -> openmm.Force:
    force = openmm.CustomAngleForce("k*(d^2-0.1*d^3); d=theta-theta0; theta0=1.9")
    force.addPerAngleParameter("k")
    for index, (i, j, k, _) in enumerate(QUADRUPLES):
        force.addAngle(i, j, k, [3.0 + index])
    return force


def custom_torsions() -> openmm.Force:
    force = openmm.CustomTorsionForce("k*(theta-theta0)^2+sin(theta)")
    for name in ("k", "theta0"):
        force.addPerTorsionParameter(name)
    for index, atoms in enumerate(QUADRUPLES):
        force.addTorsion(*atoms, [3.0 + index, 0.2 * index])
    return force


def custom_nonbonded() -> openmm.Force:
    force = openmm.CustomNonbondedForce(
        "scale*a(kind1,kind2)*erfc(2*r)/r + b(kind1)*c(kind1,kind2,1)*(charge1-2*charge2)*r"
    )
    force.addGlobalParameter("scale", 0.7)
    for name in ("charge", "kind"):
        force.addPerParticleParameter(name)
    force.addTabulatedFunction("a", openmm.Discrete2DFunction(2, 3, [1, 2, 3, 4, 5, 6]))
    force.addTabulatedFunction("b", openmm.Discrete1DFunction([0.5, -0.25]))
    table = [0.1 * index for index in range(12)]
    force.addTabulatedFunction("c", openmm.Discrete3DFunction(2, 3, 2, table))
    for index in range(NUM_ATOMS):
        force.addParticle([0.1 * index - 0.3, index % 2])
    for i, j in ((1, 0), (3, 4), (2, 7)):
        force.addExclusion(i, j)
    return force


def custom_born(*, excludes: bool) -> openmm.Force:
    force = openmm.CustomGBForce()
    single, all_pairs = force.SingleParticle, force.ParticlePairNoExclusions
    pairs = force.ParticlePair if excludes else all_pairs
    force.addGlobalParameter("kappa", 1.3)
    for name in ("charge", "size", "kind"):
        force.addPerParticleParameter(name)
    force.addTabulatedFunction("get", openmm.Discrete2DFunction(2, 2, [1.0, 0.5, 0.25, 2.0]))
    neck = "size2*exp(-r/size1)+select(step(size1-r),get(kind1,kind2)/(1+r^6),0)"
    force.addComputedValue("I", neck, pairs)
    force.addComputedValue("B", "1/(1/size+tanh(psi)); psi=I*size+0.1", single)
    force.addComputedValue("C", "B^2+kappa*I", single)
    force.addEnergyTerm("-charge^2*exp(-kappa*B)/B+0.1*C", single)
    force.addEnergyTerm("(size/B)^6", single)
    still = "-charge1*charge2*exp(-kappa*f)/f; f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"
    force.addEnergyTerm(still, all_pairs)
    force.addEnergyTerm("C1*I2/(1+r)", pairs)
    for index in range(NUM_ATOMS):
        force.addParticle([0.1 * index - 0.3, 0.3 + 0.05 * index, index % 2])
    if excludes:
        force.addExclusion(0, 5)
        force.addExclusion(3, 1)
    return force


def born_without_parameters() -> openmm.Force:
    force = openmm.CustomGBForce()
    force.addComputedValue("I", "1/(1+r)", force.ParticlePair)
    force.addEnergyTerm("I^2", force.SingleParticle)
    for _ in range(NUM_ATOMS):
        force.addParticle([])
    return force


def openmms_born(*names: str, dielectric_is_global: bool = False) -> openmm.Force:
    """Return the expressions of OpenMM's OBC2, with an atom's parameters in any order."""
    constants = "" if dielectric_is_global else ";solventDielectric=78.5;soluteDielectric=1"
    difference = "138.935485*(1/soluteDielectric-1/solventDielectric)"
    force = openmm.CustomGBForce()
    for name in names:
        force.addPerParticleParameter(name)
    if dielectric_is_global:
        force.addGlobalParameter("solventDielectric", 78.5)
        force.addGlobalParameter("soluteDielectric", 1.0)
    force.addComputedValue(
        "I",
        "select(step(r+sr2-or1),"
        "0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0);"
        "U=r+sr2;L=max(or1,D);D=abs(r-sr2)",
        force.ParticlePairNoExclusions,
    )
    force.addComputedValue(
        "B",
        "1/(1/or-tanh(psi-0.8*psi^2+4.85*psi^3)/radius);psi=I*or;radius=or+offset;offset=0.009",
        force.SingleParticle,
    )
    force.addEnergyTerm(f"-0.5*{difference}*charge^2/B{constants}", force.SingleParticle)
    force.addEnergyTerm(
        f"-{difference}*charge1*charge2/f;f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2))){constants}",
        force.ParticlePairNoExclusions,
    )
    for index in range(NUM_ATOMS):
        values = {"charge": 0.4 - 0.1 * index, "or": 0.14 + 0.01 * index, "sr": 0.11}
        force.addParticle([values[name] for name in names])
    return force


FORCES: dict[str, Callable[[], openmm.Force]] = {
    "periodic torsions": periodic_torsions,
    "Ryckaert-Bellemans": ryckaert_bellemans,
    "maps": torsion_maps,
    "bonds": custom_bonds,
    "angles": custom_angles,
    "torsions": custom_torsions,
    "nonbonded": custom_nonbonded,
    "no bonds": lambda: openmm.CustomBondForce("r"),
    "Born without parameters": born_without_parameters,
    "Born": lambda: custom_born(excludes=False),
    "Born with exclusions": lambda: custom_born(excludes=True),
    "OpenMM's Born": lambda: openmms_born("charge", "or", "sr"),
    "OpenMM's Born, parameters in another order": lambda: openmms_born("charge", "sr", "or"),
    "OpenMM's Born, dielectric constants as global parameters": lambda: openmms_born(
        "charge", "or", "sr", dielectric_is_global=True
    ),
}


def system_of(*forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    for _ in range(NUM_ATOMS):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


def scattered(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.5 * torch.randn(count, NUM_ATOMS, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", FORCES)
def test_equals_openmm(kind: str) -> None:
    system = system_of(FORCES[kind]())
    positions = scattered(20).requires_grad_()
    energy, forces = ForceField.from_system(system, 300.0).energy_and_forces_kj_mol(positions)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    expected = OpenMMPotential(system, 300.0).energy_and_forces_kj_mol(positions)
    torch.testing.assert_close((energy, forces), expected, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(-gradient, expected[1], rtol=1e-10, atol=1e-9)


def test_maps_are_smooth_and_periodic() -> None:
    # Eight atoms so that only the first torsion turns, through a whole circle.
    angle = torch.linspace(-math.pi, math.pi, 721, dtype=torch.float64)
    still = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]]).double()
    turned = still.expand(len(angle), 4, 3).clone()
    turned[:, 3] = torch.stack([angle.sin(), angle.cos(), torch.ones_like(angle)], dim=1)
    force = openmm.CMAPTorsionForce()
    force.addMap(6, torch.randn(36, generator=torch.Generator().manual_seed(2)).tolist())
    force.addTorsion(0, 0, 1, 2, 3, 4, 5, 6, 7)
    positions = torch.cat([turned, still.expand_as(turned)], dim=1)
    force_field = ForceField.from_system(system_of(force), 300.0)
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    torch.testing.assert_close(energy[0], energy[-1])
    torch.testing.assert_close(forces[0], forces[-1])
    # Slopes that jumped at the 60 degrees of the grid would show in the second differences.
    assert energy.diff().diff().abs().max() < 2e-3


def test_a_straight_torsion_is_finite() -> None:
    line = torch.arange(NUM_ATOMS)[:, None] * torch.tensor([0.1, 0.0, 0.0])
    for kind in ("torsions", "maps", "Ryckaert-Bellemans"):
        positions = torch.stack([line, torch.zeros_like(line)]).requires_grad_()
        force_field = ForceField.from_system(system_of(FORCES[kind]()), 300.0, torch.float32)
        energy, forces = force_field.energy_and_forces_kj_mol(positions)
        (gradient,) = torch.autograd.grad(energy.sum(), positions)
        assert energy.isfinite().all()
        assert forces.isfinite().all()
        assert gradient.isfinite().all()


def with_cutoff() -> openmm.Force:
    force = custom_nonbonded()
    force.setNonbondedMethod(force.CutoffNonPeriodic)
    return force


def with_groups() -> openmm.Force:
    force = custom_nonbonded()
    force.addInteractionGroup([0, 1], [2, 3])
    return force


def with_a_spline() -> openmm.Force:
    force = custom_nonbonded()
    force.addTabulatedFunction("smooth", openmm.Continuous1DFunction([1, 2, 3], 0, 1))
    return force


def out_of_table() -> openmm.Force:
    force = custom_nonbonded()
    force.setParticleParameters(0, [0.0, 5.0])
    return force


def periodic() -> openmm.Force:
    force = custom_angles()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def with_offsets() -> openmm.Force:
    force = openmm.NonbondedForce()
    for _ in range(NUM_ATOMS):
        force.addParticle(0.1, 0.2, 0.3)
    force.addGlobalParameter("lambda", 0.5)
    force.addParticleParameterOffset("lambda", 0, 1.0, 0.0, 0.0)
    return force


def without_period() -> openmm.Force:
    force = periodic_torsions()
    force.addTorsion(*QUADRUPLES[0], 0, 0.0, 3.0)
    return force


def born_of(*values: tuple[str, str, int]) -> openmm.Force:
    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    for value in values:
        force.addComputedValue(*value)
    for _ in range(NUM_ATOMS):
        force.addParticle([1.0])
    return force


SINGLE, PAIR = openmm.CustomGBForce.SingleParticle, openmm.CustomGBForce.ParticlePair


@pytest.mark.parametrize(
    ("force", "message"),
    [
        (openmm.AmoebaMultipoleForce, "got AmoebaMultipoleForce; use a fixed-charge force field"),
        (openmm.DrudeForce, "got DrudeForce"),
        (openmm.GayBerneForce, "got GayBerneForce"),
        (lambda: openmm.CustomExternalForce("x"), "got CustomExternalForce"),
        (lambda: openmm.CustomCompoundBondForce(2, "x1"), "got CustomCompoundBondForce"),
        (with_cutoff, "got CustomNonbondedForce with a cutoff; create the System with nonbonded"),
        (with_groups, "got one with interaction groups"),
        (with_a_spline, "got the Continuous1DFunction smooth"),
        (out_of_table, "tabulated function a: expected operands from 0 to 1, got from 0 to 5"),
        (periodic, "got CustomAngleForce with periodic boundaries"),
        (with_offsets, "got NonbondedForce with parameter offsets"),
        (without_period, "got a torsion of periodicity 0"),
        (lambda: born_of(("A", "q", SINGLE)), "got 0 of pairs among 1"),
        (lambda: born_of(("A", "r", PAIR), ("B", "r", PAIR)), "got 2 of pairs among 2"),
        (lambda: born_of(("A", "r*x1", PAIR)), "got 'x1'"),
        (lambda: openmm.CustomAngleForce("k*theta"), "got 'k'; the nearest"),
        (lambda: openmm.CustomAngleForce("2*(theta"), "expected a closing bracket at character 9"),
    ],
)
def test_what_is_not_evaluated_is_refused(force: Callable[[], openmm.Force], message: str) -> None:
    with pytest.raises(InputError) as refused:
        ForceField.from_system(system_of(force()), 300.0)
    assert message in str(refused.value)


def test_a_neighbour_adds_to_the_first_value_of_a_pair() -> None:
    # By hand: I_i = sum_j q_j / r, energy = sum_i q_i I_i^2, two atoms 0.5 nm apart.
    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    force.addComputedValue("I", "q2/r", PAIR)
    force.addEnergyTerm("q*I^2", SINGLE)
    system = openmm.System()
    for charge in (1.0, 3.0):
        system.addParticle(1.0)
        force.addParticle([charge])
    system.addForce(force)
    force_field = ForceField.from_system(system, 300.0)
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]], dtype=torch.float64)
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    assert energy.item() == pytest.approx(1 * 36 + 3 * 4)
    assert forces[0, 1, 2].item() == pytest.approx(2 * 48 / 0.5)
