import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from torch import Tensor

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.bonded import PairVectors
from bnce_dist.chem.potentials.force_field import ForceField, build_system
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.core.errors import InputError

FORCE_FIELDS = [
    ("amber14-all.xml",),
    ("amber14-all.xml", "implicit/hct.xml"),
    ("amber14-all.xml", "implicit/obc1.xml"),
    ("amber14-all.xml", "implicit/obc2.xml"),
    ("amber14-all.xml", "implicit/gbn.xml"),
    ("amber14-all.xml", "implicit/gbn2.xml"),
    ("amber14/protein.ff15ipq.xml",),
    ("amber19-all.xml",),
    ("amber19-all.xml", "implicit/obc2.xml"),
    ("amber19-all.xml", "implicit/gbn2.xml"),
    ("amberfb15.xml", "implicit/gbn.xml"),
    ("amber03.xml", "amber03_obc.xml"),
    ("amber10.xml", "amber10_obc.xml"),
    ("amber96.xml", "amber96_obc.xml"),
    ("amber99sb.xml", "amber99_obc.xml"),
    ("amber99sbildn.xml", "implicit/obc1.xml"),
    ("amber99sbnmr.xml", "implicit/hct.xml"),
]
# Sulphur, of which GBn2 has a negative radius, and a map of the backbone.
CYSTEINE = ("ACE-CYS-NME", ("amber19-all.xml", "implicit/gbn2.xml"))
CHARMM = ("charmm36.xml", "implicit/obc2.xml")
BRANCHES = [
    ("amber14-all.xml", "implicit/obc1.xml"),
    ("amber96.xml", "amber96_obc.xml"),
    ("amber14-all.xml", "implicit/gbn2.xml"),
]


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


@pytest.fixture(scope="module")
def force_field(alanine: Molecule) -> ForceField:
    return ForceField.from_system(build_system(alanine), 300.0)


def conformations(system: openmm.System, molecule: Molecule) -> dict[str, Tensor]:
    """Return MD frames, the same strained by 0.02 nm, and atoms scattered at random."""
    integrator = openmm.LangevinIntegrator(500.0, 10.0, 0.001)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(molecule.positions_nm)
    frames = []
    for _ in range(8):
        integrator.step(10)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    dynamics = torch.from_numpy(np.array(frames))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(dynamics.shape, generator=generator, dtype=torch.float64)
    return {"dynamics": dynamics, "strained": dynamics + 0.02 * noise, "random": 0.3 * noise}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    error = torch.linalg.vector_norm(actual - expected, dim=(1, 2))
    return float((error / torch.linalg.vector_norm(expected, dim=(1, 2))).max())


@pytest.mark.parametrize(
    ("sequence", "files"),
    [
        *(("ACE-ALA-NME", files) for files in FORCE_FIELDS),
        ("CP", ("amber14-all.xml", "implicit/obc1.xml")),
        ("CP", ("amber19-all.xml", "implicit/gbn.xml")),
        CYSTEINE,
        pytest.param("AAA", CHARMM[:1], marks=pytest.mark.slow),
        pytest.param("AAA", CHARMM, marks=pytest.mark.slow),
    ],
)
def test_equals_openmm(sequence: str, files: tuple[str, ...]) -> None:
    molecule = Molecule.from_sequence(sequence)
    system = build_system(molecule, files)
    double = ForceField.from_system(system, 300.0)
    single = double.astype(torch.float32)
    oracle = OpenMMPotential(system, 300.0)
    for kind, positions in conformations(system, molecule).items():
        expected_energy, expected_forces = oracle.energy_and_forces_kj_mol(positions)
        energy, forces = double.energy_and_forces_kj_mol(positions)
        torch.testing.assert_close(energy, expected_energy, rtol=1e-12, atol=1e-8)
        assert relative_error(forces, expected_forces) < 1e-10
        energy, forces = single.energy_and_forces_kj_mol(positions)
        assert relative_error(forces.double(), expected_forces) < 1e-4
        if kind == "dynamics":
            assert (energy - expected_energy).abs().max() < 1e-3 * single.kt_kj_mol


def test_reduced_potential_is_the_oracles(alanine: Molecule, force_field: ForceField) -> None:
    oracle = OpenMMPotential(build_system(alanine), 300.0)
    positions = torch.from_numpy(alanine.positions_nm)[None]
    expected = oracle.reduced_potential(positions)
    torch.testing.assert_close(force_field.reduced_potential(positions), expected)
    # kT at 300 K is 2.4943 kJ/mol (CODATA gas constant 8.314462618 J/mol/K).
    assert force_field.kt_kj_mol == pytest.approx(2.494338785, rel=1e-9)


@pytest.mark.parametrize("files", BRANCHES, ids="+".join)
def test_analytic_forces_are_the_gradient_of_interpenetrating_atoms(files: tuple[str, ...]) -> None:
    # Scattered this tightly, every branch of the Born integral occurs: sulphur swallows hydrogen.
    molecule = Molecule.from_sequence("AC")
    force_field = ForceField.from_system(build_system(molecule, files), 300.0)
    generator = torch.Generator().manual_seed(2)
    positions = 0.1 * torch.randn(64, 24, 3, generator=generator, dtype=torch.float64)
    closest = torch.stack([torch.pdist(conformation).min() for conformation in positions])
    positions = positions[closest > 0.01].requires_grad_()
    assert len(positions) > 50
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    assert relative_error(forces.detach(), -gradient) < 1e-10


def test_energy_can_be_differentiated_twice(alanine: Molecule, force_field: ForceField) -> None:
    positions = torch.from_numpy(alanine.positions_nm)[None].requires_grad_()
    energy = force_field.potential_energy_kj_mol(positions).sum()
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    direction = torch.randn(positions.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    (product,) = torch.autograd.grad((gradient * direction).sum(), positions)
    step = 1e-5 * direction
    _, forward = force_field.energy_and_forces_kj_mol(positions.detach() + step)
    _, backward = force_field.energy_and_forces_kj_mol(positions.detach() - step)
    assert relative_error(product, (backward - forward) / 2e-5) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("sequence", "files"), [("ACE-ALA-NME", BRANCHES[0]), CYSTEINE], ids=["OBC", "GBn2"]
)
def test_degenerate_geometries_are_never_nan(
    sequence: str, files: tuple[str, ...], dtype: torch.dtype
) -> None:
    molecule = Molecule.from_sequence(sequence)
    force_field = ForceField.from_system(build_system(molecule, files), 300.0, dtype)
    count = molecule.num_atoms
    line = torch.arange(count, dtype=dtype)[:, None] * torch.tensor([0.1, 0, 0], dtype=dtype)
    positions = torch.stack([torch.zeros(count, 3, dtype=dtype), line, 0 * line + 5, 1e4 * line])
    positions.requires_grad_()
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    assert energy.isfinite().all()
    assert energy[0] > 1e10
    assert forces.isfinite().all()
    assert gradient.isfinite().all()


def test_energy_ignores_rigid_motion_and_batch_composition(
    alanine: Molecule, force_field: ForceField
) -> None:
    generator = torch.Generator().manual_seed(3)
    rotations, _ = torch.linalg.qr(torch.randn(300, 3, 3, generator=generator).double())
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    positions = torch.from_numpy(alanine.positions_nm) @ rotations + 1.0
    energy, forces = force_field.energy_and_forces_kj_mol(positions)
    torch.testing.assert_close(energy, energy[:1].expand(300))
    _, alone = force_field.energy_and_forces_kj_mol(positions[299:])
    torch.testing.assert_close(forces[299:], alone)
    assert forces.sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("files", [BRANCHES[0], CYSTEINE[1]], ids="+".join)
def test_survives_pickling(alanine: Molecule, files: tuple[str, ...]) -> None:
    force_field = ForceField.from_system(build_system(alanine, files), 300.0)
    positions = torch.from_numpy(alanine.positions_nm)[None]
    copy = pickle.loads(pickle.dumps(force_field))
    assert torch.equal(copy.reduced_potential(positions), force_field.reduced_potential(positions))


@pytest.mark.slow
@pytest.mark.parametrize("files", [BRANCHES[0], CYSTEINE[1]], ids="+".join)
def test_compiled_equals_eager(alanine: Molecule, files: tuple[str, ...]) -> None:
    eager = ForceField.from_system(build_system(alanine, files), 300.0, torch.float32)
    fast = eager.compiled(tile_size=64)
    if fast is eager:
        pytest.skip("no working C++ compiler here")
    noise = torch.randn(150, 22, 3, generator=torch.Generator().manual_seed(4))
    positions = torch.from_numpy(alanine.positions_nm) + 0.005 * noise
    energy, forces = eager.energy_and_forces_kj_mol(positions)
    with torch.inference_mode():
        fast_energy, fast_forces = fast.energy_and_forces_kj_mol(positions)
    torch.testing.assert_close(fast_energy, energy, rtol=1e-5, atol=2e-3)
    assert relative_error(fast_forces, forces) < 1e-5
    assert fast.astype(torch.float64).reduced_potential(positions).dtype == torch.float64


@pytest.mark.slow
def test_one_process_compiles_as_many_molecules_as_a_fleet_has() -> None:
    for num_atoms in range(2, 4):
        pairs = PairVectors([(0, num_atoms - 1)], num_atoms)
        eager = ForceField([], pairs, [], num_atoms=num_atoms, temperature_kelvin=300.0)
        with torch._dynamo.config.patch(recompile_limit=1):  # type: ignore[no-untyped-call]
            fast = eager.compiled(tile_size=1)
        if fast is eager:
            pytest.skip("no working C++ compiler here")
        assert fast.potential_energy_kj_mol(torch.ones(1, num_atoms, 3)).tolist() == [0.0]


@pytest.mark.slow
def test_without_a_compiler_it_warns_and_runs(tmp_path: Path) -> None:
    script = (
        "import torch, warnings\n"
        "from bnce_dist.chem.potentials.force_field import ForceField\n"
        "from bnce_dist.chem.potentials.bonded import PairVectors\n"
        "empty = ForceField([], PairVectors([(0, 1)], 2), [], num_atoms=2, temperature_kelvin=1)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    same = empty.double().compiled()\n"
        "print([str(entry.message) for entry in caught if 'uncompiled' in str(entry.message)])\n"
        "print(same.potential_energy_kj_mol(torch.zeros(1, 2, 3)).tolist())\n"
    )
    environment = {"PATH": "", "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    warning, energy = result.stdout.strip().split("\n")
    assert warning.count("force field runs uncompiled") == 1
    assert energy == "[0.0]"


@pytest.mark.parametrize("temperature", [-300.0, 0.0, float("nan")])
def test_rejects_a_temperature_that_is_none(alanine: Molecule, temperature: float) -> None:
    with pytest.raises(InputError, match="temperature_kelvin: expected a positive number"):
        ForceField.from_system(build_system(alanine), temperature)
    with pytest.raises(InputError, match="temperature_kelvin"):
        OpenMMPotential(build_system(alanine), temperature)


def test_rejects_nan_and_another_molecules_positions(force_field: ForceField) -> None:
    positions = torch.zeros(3, 22, 3)
    positions[1, 4, 2] = float("nan")
    with pytest.raises(InputError, match="1 conformations with NaN or inf"):
        force_field.reduced_potential(positions)
    with pytest.raises(InputError, match=r"expected shape \(batch, 22, 3\), got shape \(3, 21, 3"):
        force_field.reduced_potential(torch.zeros(3, 21, 3))
    with pytest.raises(InputError, match=r"got shape \(22, 3\)"):
        force_field.energy_and_forces_kj_mol(torch.zeros(22, 3))


def test_rejects_systems_it_would_evaluate_wrongly(alanine: Molecule) -> None:
    loader = app.ForceField("amber14-all.xml", "implicit/obc1.xml")
    periodic = loader.createSystem(alanine.topology, nonbondedMethod=app.CutoffNonPeriodic)
    with pytest.raises(InputError, match="with a cutoff"):
        ForceField.from_system(periodic, 300.0)
    constrained = loader.createSystem(alanine.topology, constraints=app.HBonds)
    with pytest.raises(InputError, match="12 constraints"):
        ForceField.from_system(constrained, 300.0)
    other = build_system(alanine)
    other.addForce(openmm.CustomExternalForce("x"))
    with pytest.raises(InputError, match="got CustomExternalForce"):
        ForceField.from_system(other, 300.0)
    with pytest.raises(InputError, match="AmoebaMultipoleForce"):
        ForceField.from_system(build_system(alanine, ("amoeba2018.xml",)), 300.0)


def test_rejects_an_unknown_force_field_file(alanine: Molecule, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_force_field"):
        build_system(alanine, ("no_such_force_field.xml",))
    # OpenMM raises a bare Exception here, as where two templates fit (charmm36.xml).
    with pytest.raises(InputError, match=r"expected OpenMM files .* for ACE-ALA-NME"):
        build_system(alanine, (str(tmp_path),))
    with pytest.raises(InputError, match="platform: expected 'Reference' or 'CPU', got 'CUDA'"):
        OpenMMPotential(build_system(alanine), 300.0, platform="CUDA")
