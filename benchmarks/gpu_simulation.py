"""The parts of ``gpu.py`` that simulate: Langevin dynamics and umbrella sampling."""

from collections.abc import Iterator

import torch
from gpu_inputs import LARGE, SMALL, Inputs
from gpu_timing import Bench, Case, Row, Run, Work, moved
from torch import Tensor

from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.langevin import Langevin, LangevinSettings, repartitioned_masses
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.umbrella import UmbrellaSampler
from bnce_dist.core.errors import InputError
from bnce_dist.generator.target import Target

STEPS = ReferenceConfig.exchange_interval_steps
"""Of one call, which evaluates the forces twice more than that."""
NUM_PHI = 12
"""Windows along phi; those along psi are as many as make up the chains."""
FLOP_PER_PAIR = 170
"""Coulomb, Lennard-Jones and generalised Born with their derivatives; the rest is small beside."""
BYTES_PER_PAIR = 325
"""Read and written if no two operations are fused."""
THERMAL_NOISE_NM = 0.004


def langevin(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure chain-steps per second of unbiased dynamics, the small molecule first."""
    sizes = (4,) if bench.tiny else (10_000, 100_000, 1_000)
    plain = [Case(size, mode) for size in sizes for mode in ("eager", "captured")]
    yield from bench.rows(_dynamics(inputs.targets[SMALL]), plain)
    yield from bench.rows(_dynamics(inputs.targets[LARGE]), plain[:2])
    if not bench.tiny:  # A compilation takes half a minute, and may take the part's time.
        compiled = [
            Case(size, mode) for size in sizes[:2] for mode in ("compiled+captured", "compiled")
        ]
        yield from bench.rows(_dynamics(inputs.targets[SMALL]), compiled)


def umbrella(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure chain-steps per second of umbrella sampling, biases and exchanges included."""
    sizes = (48,) if bench.tiny else (9_216, 144, 49_152)
    cases = [Case(size, mode) for size in sizes for mode in ("captured", "eager")]
    yield from bench.rows(_umbrella(inputs.targets[SMALL]), cases)


def thermal_positions(target: Target, size: int) -> Tensor:
    """Return the relaxed structure with some noise on it, ``(size, atoms, 3)`` float64 [nm]."""
    molecule = target.molecule
    noise = torch.randn(
        size, molecule.num_atoms, 3, dtype=torch.float64, generator=torch.manual_seed(0)
    )
    return torch.from_numpy(molecule.positions_nm) + THERMAL_NOISE_NM * noise


def _dynamics(target: Target) -> Work:
    assert isinstance(target.force_field, ForceField)
    original, molecule = target.force_field, target.molecule

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        force_field = _prepared(original, device, dtype, size, compiled=compiled)
        settings = LangevinSettings(force_field.temperature_kelvin, 2.0)
        masses = repartitioned_masses(
            molecule.masses_dalton, molecule.elements, molecule.bonds,
            settings.hydrogen_mass_dalton,
        )  # fmt: skip
        dynamics = Langevin(lambda x: force_field.energy_and_forces_kj_mol(x)[1], masses, settings)
        starts = thermal_positions(target, size).to(device, dtype)
        random = default_generator(device)
        positions, velocities = starts.clone(), dynamics.thermal_velocities(starts, random)

        def run() -> tuple[Tensor, ...]:
            moved_on = dynamics.unchecked_run(positions, velocities, STEPS, random)
            positions.copy_(moved_on[0])
            velocities.copy_(moved_on[1])
            return force_field.energy_and_forces_kj_mol(starts)

        return run

    return Work(
        f"dynamics of {molecule.name}",
        make,
        "chain-steps",
        ("energy_kj_mol", "forces_kj_mol_nm"),
        units=STEPS,
        flop=_num_pairs(target) * FLOP_PER_PAIR,
        bytes_eager=_num_pairs(target) * BYTES_PER_PAIR,
        goal=1e8 if molecule.name == SMALL else None,
    )


def _umbrella(target: Target) -> Work:
    assert isinstance(target.force_field, ForceField)
    original = target.force_field

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        force_field = _prepared(original, device, dtype, size, compiled=compiled)
        config = ReferenceConfig(num_phi=NUM_PHI, num_psi=size // NUM_PHI)
        sampler = UmbrellaSampler(force_field, target.molecule, config, seed=0)
        starts = thermal_positions(target, size).to(device, dtype)
        random = default_generator(device)
        dynamics = sampler._langevin()
        sampler.positions_nm = starts
        sampler.velocities = dynamics.thermal_velocities(starts, random)

        def run() -> tuple[Tensor, ...]:
            sampler.chain_centres = sampler.centres
            biased = dynamics.forces(starts)
            sampler._advance_interval(dynamics, random)
            return (biased,)

        return run

    return Work(
        f"umbrella sampling of {target.molecule.name}",
        make,
        "chain-steps",
        ("biased_forces_kj_mol_nm",),
        units=STEPS,
        flop=_num_pairs(target) * FLOP_PER_PAIR,
        bytes_eager=_num_pairs(target) * BYTES_PER_PAIR,
        cpu_size=144,
        check_size=48,
        tiny_size=48,
    )


def default_generator(device: torch.device) -> torch.Generator:
    """Return the generator of a device that a CUDA graph knows."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.Generator().manual_seed(0)


def _prepared(
    original: ForceField, device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool
) -> ForceField:
    """Return the force field on a device, for so many conformations at once.

    Raises: InputError: it is to be compiled, and cannot be.
    """
    force_field = moved(original, device, dtype)
    if not compiled:
        return force_field
    fast = force_field.compiled(size)
    if fast is force_field:
        raise InputError(
            "compiled force field",
            expected="a compiler that works",
            got="none, as the warning says",
            remedy="install one, or look at the eager numbers",
        )
    return fast


def _num_pairs(target: Target) -> int:
    return target.molecule.num_atoms * (target.molecule.num_atoms - 1) // 2
