"""How ``gpu.py`` times work on a device, checks it, and puts it beside its limit and the CPU."""

import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

CPU, META = torch.device("cpu"), torch.device("meta")
Row = dict[str, Any]
Run = Callable[[], tuple[Tensor, ...]]
"""Does the work once, without waiting for the device, and returns what is checked."""
CASE_SECONDS = 2.0
"""What one case is measured for, at most."""
WARM_UP_CALLS = 3
DIGITS = 4
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Make(Protocol):
    """Prepares work of any size on any device, always from the same numbers."""

    def __call__(
        self, device: torch.device, dtype: torch.dtype, size: int, *, compiled: bool = False
    ) -> Run:
        """Return the work.

        Args:
            device: Where everything is: a GPU, the CPU or ``meta``.
            dtype: float32, or float64 for what it is checked against.
            size: Samples, or chains.
            compiled: Whether its networks, or its force field, go through ``torch.compile``.
        """
        ...


@dataclass(frozen=True)
class Case:
    """One way to do a work.

    Args:
        size: Samples, or chains.
        mode: ``eager``, ``compiled``, ``captured`` (a CUDA graph) or ``compiled+captured``.
        precision: ``fp32``, ``tf32`` (of matrix products) or ``bf16`` (autocast).
    """

    size: int
    mode: str = "eager"
    precision: str = "fp32"


@dataclass(frozen=True)
class Work:
    """What is measured.

    Args:
        name: Of the work within its part.
        make: Prepares it.
        unit: What a rate counts per second.
        outputs: Names of what a run returns, for the check.
        units: How many units one sample, or chain, is in one run.
        flop: Of a unit; counted on ``meta`` by default, which sees products of matrices alone.
            Without any, no limit is stated.
        more_flop: Of a unit, added to what is counted.
        bytes_eager: Of a unit, if every intermediate result goes through memory.
        goal: Units per second to reach, of shared notes on the hardware.
        extrapolate: Numbers of units whose time is of interest.
        cpu_size: Samples at once on the CPU.
        check_size: Samples whose outputs are compared with the CPU's in float64.
        tiny_size: At most so many of both where only to see that everything runs.
    """

    name: str
    make: Make
    unit: str
    outputs: tuple[str, ...]
    units: int = 1
    flop: float | None = None
    more_flop: float = 0.0
    bytes_eager: float | None = None
    goal: float | None = None
    extrapolate: tuple[int, ...] = ()
    cpu_size: int = 256
    check_size: int = 16
    tiny_size: int = 4


@dataclass
class Bench:
    """A device, how long a part may take, and what was measured once for all its cases.

    Args:
        device: What is measured.
        seconds: Of a part.
        tiny: Whether only to see that everything runs.
    """

    device: torch.device
    seconds: float
    tiny: bool = False
    _cpu_rates: dict[str, float] = field(default_factory=dict)
    _checks: dict[tuple[str, str], Row] = field(default_factory=dict)
    _counters: dict[tuple[str, int], "Counter"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    def rows(self, work: Work, cases: Sequence[Case]) -> Iterator[Row]:
        """Yield what each case measured, most important first, while there is time."""
        for case in dict.fromkeys(cases):
            where = {"work": work.name, **vars(case)}
            if time.monotonic() > self.deadline:
                yield {**where, "skipped": f"{self.seconds:g} seconds are over"}
            elif "captured" in case.mode and self.device.type != "cuda":
                yield {**where, "skipped": "CUDA graphs need a GPU"}
            else:
                yield {**where, **self._halving(work, case)}

    def _halving(self, work: Work, case: Case) -> Row:
        """Return the row of the largest size that fits, halved from the one asked for."""
        size, too_large = case.size, []
        while True:
            try:
                row = self._row(work, Case(size, case.mode, case.precision))
                return {"size": size, "out_of_memory_at": too_large, **row}
            except torch.OutOfMemoryError as error:
                too_large.append(size)
                if size == 1:
                    return {"out_of_memory_at": too_large, "error": described(error)}
            except Exception as error:
                # Whatever a compiler, a capture or a kernel raises: the next case may work.
                return {"error": described(error)}
            size //= 2
            torch.cuda.empty_cache()

    def _row(self, work: Work, case: Case) -> Row:
        with using(case.precision, self.device):
            started = time.perf_counter()
            run = work.make(self.device, torch.float32, case.size, compiled="compiled" in case.mode)
            if "captured" in case.mode:
                run = captured(run)
            seconds = self.seconds_per_call(run)
            prepared = time.perf_counter() - started
        rate = case.size * work.units / seconds
        counter = self._counted(work, case.size)
        flop = counter.flop / (case.size * work.units) if work.flop is None else work.flop
        flop += work.more_flop
        cpu = self._cpu_rate(work)
        row = {
            "unit": f"{work.unit} per second",
            "rate": rate,
            "seconds_per_call": seconds,
            "seconds_in_all": prepared,
            "cpu": cpu,
            "ratio": rate / cpu,
            "host_copies_per_call": counter.host_copies,
            **{f"seconds_for_{number}": number / rate for number in work.extrapolate},
            "check": self._check(work, case.precision),
        }
        if flop > 0:
            limit = roof(self.device, case.precision, self.tiny) / flop
            row |= {"flop_per_unit": flop, "limit": limit, "fraction_of_limit": rate / limit}
        if work.bytes_eager is not None:
            row["limit_through_memory"] = bandwidth(self.device, self.tiny) / work.bytes_eager
        if work.goal is not None:
            row |= {"goal": work.goal, "fraction_of_goal": rate / work.goal}
        return rounded(row)

    def seconds_per_call(self, run: Run) -> float:
        """Return how long a call takes, over as many as there is time for [s].

        The device is waited for before and after them all, never between.
        """
        left = self.deadline - time.monotonic()
        seconds = 0.05 if self.tiny else min(CASE_SECONDS, max(0.25 * left, 0.2))
        for _ in range(1 if self.tiny else WARM_UP_CALLS):
            one = timed(run, 1, self.device)
        count = max(1, min(1000, int(seconds / max(one, 1e-6))))
        return timed(run, count, self.device) / count

    def _counted(self, work: Work, size: int) -> "Counter":
        if (work.name, size) not in self._counters:
            self._counters[work.name, size] = counted(work, size)
        return self._counters[work.name, size]

    def _cpu_rate(self, work: Work) -> float:
        """Return the units per second of the CPU with all its cores, eager, in float32."""
        if work.name not in self._cpu_rates:
            size = min(work.cpu_size, work.tiny_size) if self.tiny else work.cpu_size
            run = work.make(CPU, torch.float32, size)
            one = timed(run, 1, CPU)
            count = 1 if self.tiny else max(1, min(100, int(1.0 / one)))
            self._cpu_rates[work.name] = size * work.units * count / timed(run, count, CPU)
        return self._cpu_rates[work.name]

    def _check(self, work: Work, precision: str) -> Row:
        """Return the errors of each output against the CPU in float64.

        ``max`` is the largest difference, ``max_relative`` that over the largest value.
        """
        key = (work.name, precision)
        if key not in self._checks:
            size = min(work.check_size, work.tiny_size) if self.tiny else work.check_size
            with using(precision, self.device):
                found = work.make(self.device, torch.float32, size)()
            expected = work.make(CPU, torch.float64, size)()
            self._checks[key] = {
                name: errors(one, other)
                for name, one, other in zip(work.outputs, found, expected, strict=True)
            }
        return self._checks[key]


def errors(found: Tensor, expected: Tensor) -> Row:
    """Return by how much an output differs from what it should be."""
    difference = (found.detach().cpu().double() - expected.detach()).abs().max().item()
    scale = expected.detach().abs().max().item()
    return rounded({"max": difference, "max_relative": difference / max(scale, 1e-30)})


def timed(run: Callable[[], object], count: int, device: torch.device) -> float:
    """Return how long so many calls take [s]."""
    synchronise(device)
    started = time.perf_counter()
    for _ in range(count):
        run()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait for a device; the CPU needs no waiting for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def captured(run: Run) -> Run:
    """Return the replay of a CUDA graph of a work, whose outputs lie where they lay before.

    Random numbers of the device's default generator are new ones at every replay.

    Raises: RuntimeError: it waits for the device, or copies to it from the CPU.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


@contextmanager
def using(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in a precision within the block, on one device alone."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    contexts: list[AbstractContextManager[Any]] = []
    if precision == "bf16":
        # A cache of casts would outlive the capture that filled it.
        contexts.append(torch.autocast(device.type, torch.bfloat16, cache_enabled=False))
    try:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Counter(TorchDispatchMode):
    """Counts what products of matrices compute, by torch's own table, and copies to ``meta``.

    A tensor made from numbers of Python on a device is a copy that is not seen here. Torch's
    ``FlopCounterMode`` follows modules, too, and refuses gradients within them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0
        self.host_copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        of_operation = flop_registry.get(func._overloadpacket)
        if of_operation is not None:
            self.flop += of_operation(*args, **(kwargs or {}), out_val=result)
        elif func in COPIES and result.device == META:
            devices = {leaf.device for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
            self.host_copies += CPU in devices
        return result


def counted(work: Work, size: int) -> Counter:
    """Return what one run of a work does, counted on no device at all.

    Every copy from the host makes it wait for a GPU, and cannot be part of a CUDA graph; what is
    moved once, before everything, does not count.
    """
    run = work.make(META, torch.float32, size)
    run()
    with Counter() as counter:
        run()
    return counter


@cache
def roof(device: torch.device, precision: str, tiny: bool) -> float:
    """Return the operations per second of a large product of matrices on a device."""
    size = 128 if tiny else 8192 if device.type == "cuda" else 1024
    with using(precision, device):
        left = torch.randn(size, size, device=device)
        timed(lambda: left @ left, 2, device)
        count = 10
        return 2 * size**3 * count / timed(lambda: left @ left, count, device)


@cache
def bandwidth(device: torch.device, tiny: bool) -> float:
    """Return the bytes per second that a copy within a device's memory reads and writes."""
    source = torch.zeros(2**16 if tiny else 2**28, device=device)
    target = torch.empty_like(source)
    timed(lambda: target.copy_(source), 2, device)
    return 2 * source.nbytes * 10 / timed(lambda: target.copy_(source), 10, device)


def moved(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a copy of a module on a device, in a floating-point type."""
    return copy.deepcopy(module).to(dtype).to(device)


def described(error: BaseException) -> str:
    """Return an error's type and the beginning of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def rounded(row: Row) -> Row:
    """Return a row with floating-point numbers to a few digits."""
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def machine(device: torch.device) -> Row:
    """Return what a number was measured on."""
    row: Row = {
        "device": str(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cpu_cores": os.cpu_count(),
        "cpu_threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        row |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": list(torch.cuda.get_device_capability(device)),
            "driver": _driver(),
        }
    return row


def _driver() -> str | None:
    """Return the version of the driver, if its tool is there to say it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return said[0] if said else None
