"""The part of ``gpu.py`` that goes from nothing to a free energy, in one process on one device."""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from gpu_inputs import SMALL, Inputs
from gpu_timing import Bench, Row, described, rounded, synchronise
from torch import Tensor, nn

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.simulation.settings import DatasetConfig, ReferenceConfig
from bnce_dist.chem.simulation.training_data import (
    make_training_data,
    permute_equivalent_hydrogens,
)
from bnce_dist.chem.simulation.umbrella import UmbrellaSampler
from bnce_dist.core.free_energy import delta_f
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.generator.annealing import Annealer, AnnealingConfig, draw_pilot
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_flow_matching,
)
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target
from bnce_dist.training.loop import train
from bnce_dist.training.settings import TrainingConfig

REFERENCE_KT = 3.844
"""Of the committed long umbrella sampling."""
GOAL_SECONDS = 60.0
SEED = 0
NEEDED_BY_THE_PIPELINE = ("openmm", "mdtraj", "pymbar", "psutil", "matplotlib")
Output = TypeVar("Output")


class Stopwatch:
    """How long each phase took, the device waited for at its end.

    Args:
        device: Of the phases.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, work: Callable[[], Output]) -> Output:
        """Return what a phase returned."""
        started = time.perf_counter()
        output = work()
        synchronise(self.device)
        self.seconds[phase] = time.perf_counter() - started
        return output


def whole(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure the time from nothing to a free energy of the small molecule."""
    yield rounded(_from_tables(bench, inputs))
    row: Row = {"work": "the pipeline's own run, without Ray"}
    if bench.tiny:
        yield {**row, "skipped": "minutes on a CPU"}
        return
    missing = [name for name in NEEDED_BY_THE_PIPELINE if not importlib.util.find_spec(name)]
    if missing:
        yield {**row, "skipped": f"needs {', '.join(missing)}"}
    else:
        yield {**row, **_pipeline()}


def _from_tables(bench: Bench, inputs: Inputs) -> Row:
    """Return the times and the result of the same steps with a short simulation.

    The starts of the unbiased chains are frames of umbrella windows without their weights.
    """
    target = inputs.targets[SMALL].to(bench.device)
    clock = Stopwatch(bench.device)
    positions = clock("simulate", lambda: _simulated(target, bench))
    coordinates, z = clock("coordinates", lambda: _encoded(target, positions))
    emulator = clock("train_emulator", lambda: _trained_emulator(target, coordinates, z, bench))
    samples = clock("generate", lambda: _generated(emulator, bench))
    density = clock("train_energy", lambda: _trained_density(emulator, samples, bench))
    if bench.tiny:  # So little training finds nothing that could be annealed.
        emulator, density = inputs.emulator.to(bench.device), inputs.density.to(bench.device)
    result = clock("anneal", lambda: _free_energy(target, emulator, density, bench))
    seconds = sum(clock.seconds.values())
    return {
        "work": "nothing to delta_f from tables: short umbrella windows give unweighted starts",
        "seconds": seconds,
        **{f"seconds_{phase}": one for phase, one in clock.seconds.items()},
        "limit": GOAL_SECONDS,
        "fraction_of_limit": GOAL_SECONDS / seconds,
        "check": {**rounded(result), "reference_kT": REFERENCE_KT},
    }


def _simulated(target: Target, bench: Bench) -> Tensor:
    """Return training frames, ``(frames, atoms, 3)`` [nm]."""
    tiny = bench.tiny
    windows = ReferenceConfig(
        num_phi=4 if tiny else 24,
        num_psi=4 if tiny else 24,
        burn_in_ps=0.0 if tiny else 0.5,
        flattening_stages=0,
        equilibration_ps=0.0,
        production_ps=0.1 if tiny else 2.0,
        positions_interval_ps=0.1 if tiny else 0.5,
    )
    chains = DatasetConfig(
        num_chains=16 if tiny else 8192,
        num_tasks=1,
        frames_per_chain=8 if tiny else 25,
        frame_interval_ps=0.01 if tiny else 0.1,
        equilibration_ps=0.01 if tiny else 2.0,
    )
    dynamics = target.dynamics(chains.num_chains, compiled=False)
    sampler = UmbrellaSampler(dynamics, target.molecule, windows, SEED)
    sampler.start()
    frames = sampler.advance(windows.production_ps).positions_nm
    starts = frames.reshape(-1, *frames.shape[2:])
    weights = torch.zeros(len(starts), dtype=torch.float64).numpy()
    data = make_training_data(
        dynamics, target.molecule, starts, weights, chains, target.state, SEED
    )
    return torch.from_numpy(data.positions_nm)


def _encoded(target: Target, positions: Tensor) -> tuple[WhitenedInternal, Tensor]:
    molecule = target.molecule
    mixed = permute_equivalent_hydrogens(positions, molecule, generator(SEED, "hydrogens"))
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, mixed)
    return coordinates, coordinates.encode(mixed)[0].float()


def _trained(objective: nn.Module, z: Tensor, config: TrainingConfig, bench: Bench) -> nn.Module:
    """Return the objective with its averaged weights."""
    placed: Any = objective.to(bench.device)
    state = train(placed, z.numpy(), config.with_seed(SEED))
    placed.load_state_dict(state.averaged_state_dict())
    return placed.eval()


def _trained_emulator(
    target: Target, coordinates: WhitenedInternal, z: Tensor, bench: Bench
) -> Emulator:
    config = EmulatorConfig(num_ode_steps=20, **_size_of_training(bench))
    space = Space(coordinates.num_euclidean, coordinates.num_circular)
    objective: Any = _trained(build_flow_matching(config, space), z, config, bench)
    return Emulator(
        target.molecule.identity,
        coordinates.to(bench.device),
        objective.velocity_field,
        config.num_ode_steps,
        config.ode_time_exponent,
        config.interpolant,
    )


def _generated(emulator: Emulator, bench: Bench) -> Tensor:
    number = 256 if bench.tiny else 100_000
    return emulator.transport(emulator.sample_prior(number, generator(SEED, "generate"))).cpu()


def _trained_density(emulator: Emulator, z: Tensor, bench: Bench) -> LearnedDensity:
    config = EnergyConfig(**_size_of_training(bench))
    objective: Any = _trained(build_energy_matching(config, emulator.space), z, config, bench)
    return LearnedDensity(
        emulator.molecule_identity,
        emulator.coordinates,
        objective.energy_model,
        config.interpolant,
    )


def _size_of_training(bench: Bench) -> dict[str, Any]:
    if bench.tiny:
        return {"num_steps": 2, "warmup_steps": 0, "global_batch_size": 16, "width": 16}
    return {"num_steps": 3000, "global_batch_size": 4096}


def _free_energy(
    target: Target, emulator: Emulator, density: LearnedDensity, bench: Bench
) -> dict[str, float]:
    annealer = Annealer.of(density, target)
    config = AnnealingConfig(
        num_levels=2 if bench.tiny else None, num_leapfrog=3, num_pilot=20 if bench.tiny else 300
    )
    pilot = draw_pilot(emulator, config, SEED, "annealing")
    schedule = annealer.tune(pilot, config, SEED, "annealing")
    number = 64 if bench.tiny else 10_000
    prior = emulator.sample_prior(number, generator(SEED, "evaluate"))
    arrays = annealer.anneal(
        emulator.transport(prior), schedule, generator(SEED, "anneal", device=bench.device)
    )
    weights = arrays["log_weights"].cpu().numpy()
    in_state = target.state.contains(*(arrays[name].cpu().numpy() for name in ("phi", "psi")))
    result = delta_f(weights, in_state)
    return {"delta_f_kT": result.value_kT, "stderr_kT": result.stderr_kT}


def _pipeline() -> Row:
    """Return the time and the result of the default run of the package."""
    from bnce_dist.generator.folder import RunFolder
    from bnce_dist.pipeline.config import Config, TrackingConfig
    from bnce_dist.pipeline.executor import LocalExecutor
    from bnce_dist.runs.molecule import prepare, run_molecule

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = Config(seed=SEED, tracking=TrackingConfig(backend="none"))
            run = prepare(config, RunFolder(Path(folder) / "run"))
            metrics = run_molecule(run, LocalExecutor()) or {}
        except Exception as error:
            return {"error": described(error)}
    return rounded({
        "seconds": time.perf_counter() - started,
        "seconds_of_stages": metrics.get("seconds"),
        "limit": GOAL_SECONDS,
        "check": {
            "delta_f_kT": metrics.get("delta_f_kT"), "reference_kT": REFERENCE_KT,
        },
    })  # fmt: skip
