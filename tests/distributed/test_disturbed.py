"""One training to which everything happens on its way, and which ends as if nothing had.

Every fixture continues what the one before it left. A group of workers goes so many steps from the
last checkpoint, and then waits at a gate for what is to happen to it.
"""

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed
from ray import cloudpickle
from torch import nn

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.train import fit
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

pytestmark = [pytest.mark.ray, pytest.mark.slow]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Past the next checkpoint, which comes every tenth step.
STEPS_TO_GATE = 14


def build_disturbed(build: Callable[[], nn.Module], notes: Path) -> nn.Module:
    """Note the process; the second rank is slow, and waits at the gate while that is closed."""
    (notes / "pids" / str(os.getpid())).touch()
    objective, steps_done = build(), itertools.count()

    def before_step(*_: object) -> None:
        at_gate = next(steps_done) == STEPS_TO_GATE
        if torch.distributed.get_rank() == 1:
            time.sleep(0.02)
            while at_gate and (notes / "gate").exists():
                time.sleep(0.1)

    objective.register_forward_pre_hook(before_step)
    return objective


class Way:
    """The training on its way.

    Args:
        task: What is trained undisturbed.
        folder: With the run, and with what its workers note.
    """

    def __init__(self, task: TrainingTask, folder: Path) -> None:
        self.run, self._notes = folder / "disk" / "run", folder / "notes"
        (self._notes / "pids").mkdir(parents=True)
        build = partial(build_disturbed, task.build_objective, self._notes)
        self.task = dataclasses.replace(task, build_objective=build)

    def pids(self) -> set[int]:
        """Return the processes of all workers so far."""
        return {int(path.name) for path in (self._notes / "pids").iterdir()}

    def checkpoints(self) -> list[int]:
        """Return the steps of all checkpoints, which are whole, and of which no part lies about."""
        assert list(self.run.rglob("*.part")) == []
        return sorted(load_checkpoint(path)["step"] for path in self.run.rglob("checkpoint.pt"))

    def close_gate(self) -> None:
        (self._notes / "gate").touch()

    def open_gate(self) -> None:
        (self._notes / "gate").unlink()

    def go_on(self, records: list[Record], at_gate: Callable[[], None]) -> TrainingResult:
        """Train on two workers, and do something as soon as they have come to the gate."""

        def report(record: Record) -> None:
            records.append(record)
            if record["step"] == records[0]["step"] + STEPS_TO_GATE - 2:  # every other step
                at_gate()

        self.close_gate()
        return fit(self.task, self.run, num_workers=2, report=report)


@pytest.fixture(scope="module")
def is_on_a_disk(
    tmp_path_factory: pytest.TempPathFactory, mount_disk: Callable[[Path], bool]
) -> tuple[Path, bool]:
    """Where everything lies, and whether that is a small disk of its own."""
    folder = tmp_path_factory.mktemp("disturbed")
    return folder, mount_disk(folder / "disk")


DRIVER = """
import pickle, sys
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.train import fit
ensure_ray(num_cpus=2)
task, folder = pickle.load(open(sys.argv[1], "rb"))
fit(task, folder, num_workers=2, report=lambda record: print(record["step"], flush=True))
"""


@pytest.fixture(scope="module")
def killed_driver(is_on_a_disk: tuple[Path, bool], task: TrainingTask) -> Way:
    """After the driver, whose cluster dies with it, was killed at step 14."""
    folder, _ = is_on_a_disk
    way = Way(task, folder)
    way.close_gate()
    (folder / "arguments").write_bytes(cloudpickle.dumps((way.task, way.run)))
    command = [sys.executable, "-c", DRIVER, str(folder / "arguments")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if int(line) == STEPS_TO_GATE:
                driver.kill()
                break
    return way


@dataclasses.dataclass(frozen=True)
class Fault:
    """What ended a call, after which records of which workers, and the steps of what it left."""

    way: Way
    records: list[Record]
    pids: set[int]
    error: BaseException
    left: list[int]


@pytest.fixture(scope="module")
def interrupted(two_cpus: None, killed_driver: Way) -> Fault:
    """After an interrupt at the gate."""

    def interrupt() -> None:
        raise KeyboardInterrupt  # as Ctrl-C in the thread that shows the records

    way, records, before = killed_driver, [], killed_driver.pids()
    with pytest.raises(KeyboardInterrupt) as caught:
        way.go_on(records, interrupt)
    return Fault(way, records, way.pids() - before, caught.value, way.checkpoints())


@pytest.fixture(scope="module")
def full_disk(is_on_a_disk: tuple[Path, bool], interrupted: Fault) -> Fault | None:
    """After the disk was full at a checkpoint, if there is one that may be filled."""
    (folder, is_disk), way = is_on_a_disk, interrupted.way
    if not is_disk:
        return None
    filler = folder / "disk" / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        way.open_gate()

    records, before = [], way.pids()
    with pytest.raises(InputError) as caught:
        way.go_on(records, fill)
    filler.unlink()
    return Fault(way, records, way.pids() - before, caught.value, way.checkpoints())


@dataclasses.dataclass(frozen=True)
class End:
    """How the training came to its end."""

    records: list[Record]
    num_workers: int
    result: TrainingResult


@pytest.fixture(scope="module")
def killed_worker(interrupted: Fault, full_disk: Fault | None) -> End:
    """After one of the workers was killed, and another group finished the training."""
    way, records, before = interrupted.way, [], interrupted.way.pids()

    def kill_one() -> None:
        os.kill(max(way.pids() - before), signal.SIGKILL)
        way.open_gate()

    result = way.go_on(records, kill_one)
    return End(records, len(way.pids() - before), result)


def test_a_killed_driver_is_continued_from_its_last_checkpoint(interrupted: Fault) -> None:
    assert interrupted.records[0]["step"] == 12


def test_an_interrupt_ends_the_group(interrupted: Fault) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in interrupted.pids):
        assert time.monotonic() < deadline, "the group is gone"
        time.sleep(0.1)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(full_disk: Fault | None) -> None:
    if full_disk is None:
        pytest.skip("this user may not mount a file system")
    assert full_disk.records[0]["step"] == 22, "the interrupted call had come to step 24"
    message = r"cannot write \S*/run.*No space left on device.*free"
    with pytest.raises(InputError, match=message):
        raise full_disk.error
    assert full_disk.left == [20, 30]


def test_a_killed_worker_ends_its_group_and_another_one_goes_on(
    killed_worker: End, full_disk: Fault | None
) -> None:
    first = 32 if full_disk else 22
    assert killed_worker.num_workers == 4, "two groups of two workers"
    steps = [record["step"] for record in killed_worker.records]
    assert steps == list(range(first, 61, 2)), "each one once"


def test_all_that_and_a_slow_rank_change_no_bit(
    killed_worker: End, undisturbed: TrainingResult
) -> None:
    result = killed_worker.result
    compared = ("step", "loss", "infonce", "squared_weights")
    left, right = (
        [[record.get(name) for name in compared] for record in history]
        for history in (result.history, undisturbed.history)
    )
    assert left == right
    expected, got = (load_checkpoint(r.checkpoint_path) for r in (undisturbed, result))
    for weights in ("model", "ema"):
        for name, value in expected[weights].items():
            assert torch.equal(got[weights][name], value), (weights, name)
