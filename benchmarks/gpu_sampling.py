"""The parts of ``gpu.py`` that sample: learned weights, exact likelihoods, annealing."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from gpu_inputs import SMALL, Inputs
from gpu_timing import CPU, Bench, Case, Row, Run, Work, moved, rounded, synchronise
from torch import Tensor

from bnce_dist.chem.boltzmann_density import BoltzmannDensity
from bnce_dist.core.annealing import AnnealingSchedule, anneal
from bnce_dist.core.bridge import Bridge
from bnce_dist.core.random import generator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.evaluation import evaluate_samples
from bnce_dist.generator.learned_density import LearnedDensity

NUM_ASKED = 100_000
NUM_ANNEALED = 10_000
NUM_LEVELS, NUM_LEAPFROG, STEP_SIZE, ANGLE_WIDTH = 20, 3, 0.3, 0.3
"""Of the annealing whose time is extrapolated: what the pilot chooses for alanine dipeptide."""


def samples(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure samples with learned weights per second: flow, density, decode and energy."""
    sizes = (8, 8) if bench.tiny else (20_000, 1_000)
    cases = [
        Case(sizes[0]),
        Case(sizes[0], precision="tf32"),
        Case(sizes[0], "captured"),
        Case(sizes[1], "captured"),
        Case(sizes[0], precision="bf16"),
    ]
    if not bench.tiny:
        cases += [Case(sizes[1]), Case(sizes[0], "compiled"), Case(sizes[0], "compiled", "tf32")]
    yield from bench.rows(_samples(_for(bench, inputs)), cases)


def exact(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure exact likelihoods per second."""
    sizes = (4, 4) if bench.tiny else (2_000, 500)
    cases = [Case(sizes[0]), Case(sizes[0], precision="tf32"), Case(sizes[1])]
    yield from bench.rows(_exact(_for(bench, inputs)), cases)


def annealing(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure gradients of both densities per second, and one whole annealing."""
    sizes = (8, 8) if bench.tiny else (10_000, 1_000)
    cases = [
        Case(sizes[0]),
        Case(sizes[0], "captured"),
        Case(sizes[0], precision="tf32"),
        Case(sizes[1], "captured"),
    ]
    if not bench.tiny:
        cases.append(Case(sizes[0], "compiled"))
    yield from bench.rows(_gradients(inputs), cases)
    yield _whole_annealing(bench, inputs, sizes[0])


def _for(bench: Bench, inputs: Inputs) -> Inputs:
    """Return the inputs, with a flow of few steps where only to see that everything runs."""
    if not bench.tiny:
        return inputs
    return replace(inputs, emulator=replace(inputs.emulator, num_ode_steps=1))


def models_on(
    inputs: Inputs, device: torch.device, dtype: torch.dtype, *, compiled: bool
) -> tuple[Emulator, LearnedDensity]:
    """Return the trained models on a device; coordinates stay in float64."""
    velocity = moved(inputs.emulator.velocity_field, device, dtype)
    energy = moved(inputs.density.energy_model, device, dtype)
    if compiled:
        velocity.compile()
        energy.position_network.compile()
    coordinates = moved(inputs.emulator.coordinates, device, torch.float64)
    return (
        replace(inputs.emulator, velocity_field=velocity, coordinates=coordinates),
        replace(inputs.density, energy_model=energy, coordinates=coordinates),
    )


def prior(inputs: Inputs, device: torch.device, dtype: torch.dtype, size: int) -> Tensor:
    """Return the same noise everywhere, ``(size, dim)``."""
    path = inputs.emulator.path
    return path.sample_prior(size, generator(0, "gpu"), torch.float64).to(device, dtype)


def _samples(inputs: Inputs) -> Work:
    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        emulator, density = models_on(inputs, device, dtype, compiled=compiled)
        original = inputs.targets[SMALL]
        target = replace(original, force_field=moved(original.force_field, device, torch.float64))
        noise = prior(inputs, device, dtype, size)

        @torch.no_grad()
        def run() -> tuple[Tensor, ...]:
            z = emulator.transport(noise)
            log_density = density.log_density_z(z)
            arrays = evaluate_samples(target, emulator.coordinates, z, log_density)
            potential = arrays["reduced_potential"]
            weights = -potential - arrays["log_density"]
            # A broken sample has an infinite potential, which no difference can be taken of.
            return z, log_density, weights.clamp(-1e3, 1e3)

        return run

    return Work(
        "samples with learned weights",
        make,
        "samples",
        ("z", "log_density_nats", "log_weights_nats"),
        goal=NUM_ASKED / 2.0,
        extrapolate=(NUM_ASKED,),
        cpu_size=1000,
        check_size=200,
    )


def _exact(inputs: Inputs) -> Work:
    dim = inputs.emulator.path.dim

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        emulator, _ = models_on(inputs, device, dtype, compiled=compiled)
        noise = prior(inputs, device, dtype, size)
        return lambda: emulator.transport_with_log_density(noise)[:2]

    return Work(
        "exact likelihoods",
        make,
        "likelihoods",
        ("z", "log_density_nats"),
        # One factorisation for every step, which the counter does not see.
        more_flop=inputs.emulator.num_ode_steps * 2 / 3 * dim**3,
        goal=NUM_ASKED / 60.0,
        extrapolate=(NUM_ASKED,),
        cpu_size=20,
        check_size=8,
    )


def _bridge(
    inputs: Inputs, device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool
) -> tuple[Bridge, Emulator]:
    """Return the path between both densities, all of it in one floating-point type."""
    emulator, density = models_on(inputs, device, dtype, compiled=compiled)
    target = inputs.targets[SMALL]
    force_field = moved(target.force_field, device, dtype)
    end = BoltzmannDensity(
        target.molecule,
        moved(emulator.coordinates, device, dtype),
        force_field.compiled(size) if compiled else force_field,
    )
    return Bridge(density.log_density_z_and_gradient, end, density.path), emulator


def _gradients(inputs: Inputs) -> Work:
    # Near the data, where annealing is; far away every potential is too steep to compare.
    emulator, _ = models_on(inputs, CPU, torch.float32, compiled=False)
    pool = emulator.transport(prior(inputs, CPU, torch.float32, 64))

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        bridge, _ = _bridge(inputs, device, dtype, size, compiled=compiled)
        rows = torch.arange(size) % len(pool)
        z = pool[rows].to(device, dtype)

        def run() -> tuple[Tensor, ...]:
            point = bridge.evaluate(z)
            return point.log_start, point.gradient_start, _bounded(point.gradient_end)

        return run

    return Work(
        "gradients of both densities",
        make,
        "gradients",
        ("log_density_nats", "gradient_learned", "direction_target"),
        # One row of pairs' forces, and the products that the counter sees.
        more_flop=inputs.targets[SMALL].molecule.num_atoms * 21 / 2 * 170,
        cpu_size=1000,
        check_size=64,
    )


def _bounded(gradient: Tensor) -> Tensor:
    """Return unit vectors: a clash has a force that would hide all other errors."""
    return gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-30)


def _whole_annealing(bench: Bench, inputs: Inputs, size: int) -> Row:
    """Return how long one annealing of so many samples takes, and what its weights are worth."""
    levels = 2 if bench.tiny else NUM_LEVELS
    row: Row = {"work": "annealing", "size": size, "levels": levels, "leapfrog": NUM_LEAPFROG}
    if time.monotonic() > bench.deadline:
        return {**row, "skipped": f"{bench.seconds:g} seconds are over"}
    bridge, emulator = _bridge(inputs, bench.device, torch.float32, size, compiled=False)
    z = emulator.transport(prior(inputs, bench.device, torch.float32, size))
    fractions = tuple((level + 1) / levels for level in range(levels))
    space = bridge.space
    widths = (1.0,) * space.num_euclidean + (ANGLE_WIDTH,) * space.num_circular
    schedule = AnnealingSchedule(fractions, (STEP_SIZE,) * levels, NUM_LEAPFROG, (widths,) * levels)
    random = generator(0, "anneal", device=bench.device)
    bridge.evaluate(z)
    synchronise(bench.device)
    started = time.perf_counter()
    annealed = anneal(bridge, z, schedule, random)
    synchronise(bench.device)
    seconds = time.perf_counter() - started
    weights = annealed.log_weights.softmax(0)
    ess_fraction = (1 / weights.square().sum() / len(weights)).item()
    return rounded({
        **row,
        "seconds": seconds,
        f"seconds_for_{NUM_ANNEALED}": seconds * NUM_ANNEALED / size,
        "gradients_per_second": annealed.num_gradients / seconds,
        "check": rounded({
            "ess_fraction": ess_fraction, "acceptance": annealed.acceptance.mean().item(),
        }),
    })  # fmt: skip
