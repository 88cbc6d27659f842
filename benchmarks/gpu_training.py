"""The parts of ``gpu.py`` that train: steps of every model, and the memory of a sample."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from gpu_inputs import LARGE, SMALL, Inputs
from gpu_simulation import thermal_positions
from gpu_timing import Bench, Case, Row, Run, Work, described, rounded
from torch import Tensor, nn

from bnce_dist.chem.features import dipeptide_features
from bnce_dist.core.mean_free import to_mean_free, zero_sum_basis
from bnce_dist.core.molecular_flow_matching import pack_conformations
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_flow_matching,
)
from bnce_dist.generator.shared_architectures import TransferableConfig, build_molecular_matching
from bnce_dist.training.loop import split_batch, take_step
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice

SETTINGS = TrainSettings(num_steps=10**9)
"""One training without an end, whose learning rate stays what it is."""
GOAL = 1e6
PARTS_OF_MEMORY = 0.9
Build = Callable[[], nn.Module]


def training(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure training steps of the models in internal coordinates, in samples per second."""
    sizes = (8,) if bench.tiny else (16_384, 512, 4_096)
    ways = [("eager", "fp32"), ("captured", "fp32"), ("captured", "tf32"), ("captured", "bf16")]
    cases = [Case(size, *way) for size in sizes for way in ways]
    energy, flow = _internal_works(inputs, cpu_size=512)
    for some in (cases[: len(ways)], cases[len(ways) :]):
        yield from bench.rows(energy, some)
        yield from bench.rows(flow, some)
    yield from bench.rows(_loop(inputs), [Case(size) for size in sizes])
    yield from bench.rows(energy, [Case(sizes[0], "eager", "bf16")])
    if not bench.tiny:  # Minutes where a compiler takes them; nothing is to wait for it.
        for work in (flow, energy):
            yield from bench.rows(
                work, [Case(sizes[0], "compiled"), Case(sizes[0], "compiled+captured")]
            )


def cartesian(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure training steps of the Cartesian models at their default sizes."""
    sizes = (1,) if bench.tiny else (256, 1_024)
    ways = [("eager", "fp32"), ("captured", "fp32"), ("captured", "tf32"), ("captured", "bf16")]
    cases = [Case(size, *way) for size in sizes for way in ways]
    if not bench.tiny:
        cases.append(Case(sizes[0], "compiled"))
    for some in (cases[:2], cases[2:]):
        for work in _cartesian_works(inputs, tiny=bench.tiny):
            yield from bench.rows(work, some)


def memory(bench: Bench, inputs: Inputs) -> Iterator[Row]:
    """Measure what a sample of a training step takes, and the largest batch that fits."""
    works = [*_internal_works(inputs, cpu_size=8), *_cartesian_works(inputs, tiny=bench.tiny)]
    sizes = [(4_096, 8_192)] * 2 + [(128, 256)] * 2
    for work, (small, large) in zip(works, sizes, strict=True):
        row: Row = {"work": work.name, "unit": "bytes per sample"}
        if bench.device.type != "cuda":
            yield {**row, "skipped": "the allocator counts on a GPU alone"}
            continue
        try:
            yield {**row, **_memory_of(bench, work, small, large)}
        except Exception as error:
            yield {**row, "error": described(error)}


def _memory_of(bench: Bench, work: Work, small: int, large: int) -> Row:
    few, many = _peak_bytes(bench, work, small), _peak_bytes(bench, work, large)
    per_sample = (many - few) / (large - small)
    fixed = few - small * per_sample
    room = PARTS_OF_MEMORY * torch.cuda.mem_get_info(bench.device)[1] - fixed
    largest = int(room / per_sample)
    try:
        _peak_bytes(bench, work, largest)
        fits = True
    except torch.OutOfMemoryError:
        fits = False
    torch.cuda.empty_cache()
    return rounded({
        "per_sample": per_sample, "fixed": fixed, "largest_batch": largest, "it_fits": fits,
    })  # fmt: skip


def _peak_bytes(bench: Bench, work: Work, size: int) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    work.make(bench.device, torch.float32, size)()
    return torch.cuda.max_memory_allocated(bench.device)


def _internal_works(inputs: Inputs, *, cpu_size: int) -> list[Work]:
    """Return the steps of the energy model and of the emulator of the small molecule."""
    path = inputs.emulator.path
    space = Space(path.num_euclidean, path.num_circular)
    pool = _internal_pool(inputs)
    builds: dict[str, Build] = {
        "energy model": lambda: build_energy_matching(EnergyConfig(), space),
        "emulator": lambda: build_flow_matching(EmulatorConfig(), space),
    }
    return [
        _step(name, build, pool, cpu_size=cpu_size, check_size=256, goal=GOAL)
        for name, build in builds.items()
    ]


def _cartesian_works(inputs: Inputs, *, tiny: bool) -> list[Work]:
    """Return the steps of both Cartesian models of the large molecule, shallow if tiny."""
    target = inputs.targets[LARGE]
    features = dipeptide_features(target.molecule).tolist()
    positions = thermal_positions(target, 256).float()
    centred = 5.0 * (positions - positions.mean(1, keepdim=True))  # about unit variance
    # As in jobs/configs/transferable.yaml: every negative is one more pass through the network.
    graphormer = EnergyConfig(
        architecture="graphormer",
        width=256,
        depth=1 if tiny else 8,
        num_negatives=4,
        negatives="independent",
    )
    field = TransferableConfig(num_layers=1) if tiny else TransferableConfig()
    return [
        _step(
            "Graphormer energy model",
            lambda: build_energy_matching(graphormer, Space.of_atoms(features)),
            to_mean_free(centred, zero_sum_basis(target.molecule.num_atoms).float()),
            cpu_size=2,
            check_size=1,
        ),
        _step(
            "GVP field",
            lambda: build_molecular_matching(field, [features]),
            pack_conformations([centred]),
            cpu_size=8,
            check_size=2,
        ),
    ]


def _step(
    name: str,
    build: Build,
    pool: Tensor,
    *,
    cpu_size: int,
    check_size: int,
    goal: float | None = None,
) -> Work:
    """Return a step without any waiting: gradient, clipping, optimiser.

    Its check is the first loss and gradient.
    """

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        objective, batch = _prepared(build, pool, device, dtype, size)
        model: Any = torch.compile(objective) if compiled else objective
        weights = [weight for weight in objective.parameters() if weight.requires_grad]
        optimizer = _optimizer(weights, device)

        def run() -> tuple[Tensor, ...]:
            optimizer.zero_grad(set_to_none=False)
            loss = model(**batch)["loss"]
            loss.backward()
            gradient = torch.cat([weight.grad.flatten() for weight in weights])
            nn.utils.clip_grad_norm_(weights, SETTINGS.gradient_clip or torch.inf)
            optimizer.step()
            return loss.detach(), gradient

        return run

    return Work(
        f"training step of the {name}",
        make,
        "samples",
        ("loss", "gradient"),
        goal=goal,
        cpu_size=cpu_size,
        check_size=check_size,
        tiny_size=min(check_size, 4),
    )


def _prepared(
    build: Build, pool: Tensor, device: torch.device, dtype: torch.dtype, size: int
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return an objective and a batch, both always of the same numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective: Any = build()
    data = pool[torch.arange(size) % len(pool)]
    batch = objective.draw(data, generator(0, "gpu batch"), generator(0, "gpu common"))
    placed = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in batch.items()
    }
    return objective.to(dtype).to(device), placed


def _optimizer(weights: Sequence[Tensor], device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW; on a GPU in one kernel whose step a graph can hold."""
    options = {"fused": True, "capturable": True} if device.type == "cuda" else {}
    return torch.optim.AdamW(weights, lr=1e-6, weight_decay=0.0, **options)


def _loop(inputs: Inputs) -> Work:
    """Return a step as the training loop takes it, averages and checks included.

    It draws nothing.
    """
    path = inputs.emulator.path
    space = Space(path.num_euclidean, path.num_circular)
    pool = _internal_pool(inputs)

    def make(device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False) -> Run:
        build = lambda: build_energy_matching(EnergyConfig(), space)  # noqa: E731
        objective, batch = _prepared(build, pool, device, dtype, size)
        state = TrainState(SingleDevice(objective, SETTINGS))
        shared = objective.shared

        def run() -> tuple[Tensor, ...]:
            return (take_step(state, split_batch(batch, shared, 1), SETTINGS)["loss"],)

        return run

    return Work(
        "training step of the energy model in the loop",
        make,
        "samples",
        ("loss",),
        goal=GOAL,
        cpu_size=512,
        check_size=256,
    )


def _internal_pool(inputs: Inputs) -> Tensor:
    """Return model-space vectors of the small molecule near its structure, ``(256, dim)``."""
    positions = thermal_positions(inputs.targets[SMALL], 256)
    return inputs.emulator.coordinates.encode(positions)[0].float().clamp(-5, 5)
