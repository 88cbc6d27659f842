import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray.train
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.train import _keep_last, fit
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.training.checkpoint import load_checkpoint, save_checkpoint
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

pytestmark = [pytest.mark.ray, pytest.mark.slow]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Sums over the batch in another order: measured 5e-8 after 60 steps of Adam at 1e-3.
PARITY = {"rtol": 0.0, "atol": 1e-6}


def losses(history: list[Record]) -> list[tuple[float, float, float]]:
    return [(record["step"], record["loss"], record["infonce"]) for record in history]


def squared_weights(result: TrainingResult) -> dict[float, float]:
    """Return what was validated, by step."""
    name = "squared_weights"
    return {record["step"]: record[name] for record in result.history if name in record}


def assert_bitwise_equal(left: TrainingResult, right: TrainingResult) -> None:
    assert losses(left.history) == losses(right.history)
    contents = [load_checkpoint(result.checkpoint_path) for result in (left, right)]
    for weights in ("model", "ema"):
        for name, value in contents[0][weights].items():
            assert torch.equal(value, contents[1][weights][name]), (weights, name)


def test_two_workers_train_what_one_process_trains(
    task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    alone = LocalExecutor().fit(task, tmp_path)
    expected, got = (load_checkpoint(r.checkpoint_path) for r in (alone, undisturbed))
    for weights in ("model", "ema"):
        for name, value in expected[weights].items():
            torch.testing.assert_close(got[weights][name], value, **PARITY)
    initial = task.create_objective().state_dict()
    moved = max(
        float((value - initial[name]).abs().max())
        for name, value in expected["model"].items()
        if value.is_floating_point() and value.numel()
    )
    assert moved > 0.01, "parity means nothing if the weights did not move"
    assert [step for step, *_ in losses(undisturbed.history)] == list(range(2, 61, 2))
    for left, right in zip(losses(undisturbed.history), losses(alone.history), strict=True):
        assert left == pytest.approx(right, rel=1e-5)
    assert squared_weights(undisturbed) == pytest.approx(squared_weights(alone), rel=1e-5)
    assert list(squared_weights(undisturbed)) == [20, 40, 60]


def test_a_finished_training_starts_no_workers(
    task: TrainingTask, undisturbed: TrainingResult
) -> None:
    again = RayExecutor(2).fit(task, undisturbed.checkpoint_path.parent)
    assert again.seconds < 2
    assert losses(again.history) == losses(undisturbed.history)


def test_a_killed_worker_changes_nothing(
    slow_task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    records: list[Record] = []
    killed: list[int] = []

    def kill_one(record: Record) -> None:
        records.append(record)
        if record["step"] >= 30 and not killed:
            killed.append(max(int(path.name) for path in (tmp_path / "task" / "pids").iterdir()))
            os.kill(killed[0], signal.SIGKILL)

    result = fit(slow_task, tmp_path / "run", num_workers=2, report=kill_one)
    assert len(list((tmp_path / "task" / "pids").iterdir())) == 4, "two groups of two workers"
    assert_bitwise_equal(result, undisturbed)
    assert [record["step"] for record in records] == list(range(2, 61, 2)), "each one once"


DRIVER = """
import pickle, sys
from bnce_dist.distributed.cluster import ensure_ray
from bnce_dist.distributed.train import _keep_last, fit
ensure_ray(num_cpus=2)
task, folder = pickle.load(open(sys.argv[1], "rb"))
fit(task, folder, num_workers=2, report=lambda record: print(record["step"], flush=True))
"""


def test_a_killed_driver_is_continued_from_its_last_checkpoint(
    slow_task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    (tmp_path / "arguments").write_bytes(cloudpickle.dumps((slow_task, tmp_path / "run")))
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "arguments")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if int(line) >= 40:
                driver.kill()
                break
    records: list[Record] = []
    result = fit(slow_task, tmp_path / "run", num_workers=2, report=records.append)
    assert records[0]["step"] in (22, 42), "the last checkpoint, or the one before if uncommitted"
    assert_bitwise_equal(result, undisturbed)


def test_an_interrupt_ends_the_group_and_the_next_call_goes_on(
    slow_task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    def interrupt(record: Record) -> None:
        if record["step"] >= 30:
            raise KeyboardInterrupt  # as Ctrl-C in the thread that shows the records

    with pytest.raises(KeyboardInterrupt):
        fit(slow_task, tmp_path / "run", num_workers=2, report=interrupt)
    pids = [int(path.name) for path in (tmp_path / "task" / "pids").iterdir()]
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "the group is gone"
        time.sleep(0.1)
    assert [path.name for path in (tmp_path / "run").iterdir()] != []
    result = fit(slow_task, tmp_path / "run", num_workers=2)
    assert_bitwise_equal(result, undisturbed)


def build_deadly() -> nn.Module:
    os._exit(9)


def test_a_worker_that_always_dies_is_one_line(
    two_cpus: None, slow_task: TrainingTask, tmp_path: Path
) -> None:
    task = dataclasses.replace(slow_task, build_objective=build_deadly)
    # Ray Train may meet the death while it still sets the group up.
    with pytest.raises(InputError, match=r"(after 0 restarts|group was set up): ") as caught:
        fit(task, tmp_path / "run", num_workers=1, max_failures=0)
    assert str(caught.value).startswith("training of the energy: expected workers that live")


def test_a_death_that_ray_meets_while_it_sets_the_group_up_is_one_line(
    two_cpus: None, task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: TorchTrainer) -> None:
        raise ray.train.ControllerError(RayActorError())

    monkeypatch.setattr(TorchTrainer, "fit", fails)
    with pytest.raises(InputError, match="one that died, while its group was set up: "):
        fit(task, tmp_path / "run", num_workers=1)


class Diverging(nn.Module):
    """Infinite on one rank only, from the fifth step on."""

    shared: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.steps = 0

    def draw(
        self, x_data: Tensor, generator: torch.Generator, common: torch.Generator
    ) -> dict[str, Tensor]:
        first = torch.zeros(len(x_data), dtype=torch.bool)
        first[0] = True
        return {"x_data": x_data, "first": first}

    def forward(self, x_data: Tensor, first: Tensor) -> dict[str, Tensor]:
        self.steps += 1
        spoilt = math.inf if first.any() and self.steps == 5 else 1.0
        return {"loss": self.linear(x_data).square().mean() * spoilt}


def checkpoint_of(step: int, path: Path, task: TrainingTask) -> Path:
    objective = task.create_objective()
    content = {"step": step, "model": objective.state_dict(), "ema": {}, "optimizer": {}}
    save_checkpoint(path, {**content, "history": [{"step": step}]}, task)
    return path


@pytest.mark.parametrize("copied_in", ["order", "reverse"])
def test_the_step_tells_the_last_checkpoint_whatever_the_clocks_say(
    task: TrainingTask, tmp_path: Path, copied_in: str
) -> None:
    """As after ``cp -r``, or on a file system whose clock is another one."""
    run = tmp_path / "ray_train_1"
    paths = [
        checkpoint_of(100, tmp_path / "checkpoint.pt", task),
        checkpoint_of(500, run / "step_00000500" / "checkpoint.pt", task),
        checkpoint_of(1000, run / "step_00001000" / "checkpoint.pt", task),
    ]
    for seconds, path in enumerate(paths if copied_in == "order" else reversed(paths)):
        os.utime(path, (seconds, seconds))
    _keep_last(tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1000
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint.pt"]


def test_nothing_is_dropped_before_a_checkpoint_was_read_whole(
    task: TrainingTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "ray_train_1"
    early = checkpoint_of(500, run / "step_00000500" / "checkpoint.pt", task)
    late = checkpoint_of(1000, run / "step_00001000" / "checkpoint.pt", task)
    whole = early.read_bytes()
    for path in (early, late):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="step_00000500"):
        _keep_last(tmp_path)
    assert early.exists()
    assert late.exists()
    early.write_bytes(whole)
    _keep_last(tmp_path)
    assert "step_00001000" in caplog.text
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 500


def test_divergence_on_one_rank_ends_all_at_once(task: TrainingTask, tmp_path: Path) -> None:
    task = dataclasses.replace(task, build_objective=Diverging)
    with pytest.raises(InputError, match="training at step 5: expected a finite loss"):
        fit(task, tmp_path, num_workers=2)
    assert not (tmp_path / "checkpoint.pt").exists()


def refuse_to_build() -> nn.Module:
    raise InputError("disk", expected="free space", got="none", remedy="clean up")


def test_an_input_error_on_a_worker_arrives_as_one_line(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
    task = dataclasses.replace(task, build_objective=refuse_to_build)
    with pytest.raises(InputError) as caught:
        fit(task, tmp_path, num_workers=1, max_failures=0)
    assert str(caught.value) == "disk: expected free space, got none; clean up"


def test_what_cannot_work_is_refused_before_workers_start(
    two_cpus: None, task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    for num_workers in (0, 3):
        with pytest.raises(InputError, match=f"1 to 2.*got {num_workers}"):
            fit(task, tmp_path, num_workers=num_workers)
    seven = task.settings.model_copy(update={"global_batch_size": 7})
    with pytest.raises(InputError, match="multiple of the number of workers"):
        fit(dataclasses.replace(task, settings=seven), tmp_path, num_workers=2)
    with pytest.raises(InputError, match="training data"):
        fit(dataclasses.replace(task, data_path=tmp_path / "none.npy"), tmp_path, num_workers=2)
    other = dataclasses.replace(task.metadata, molecule="molecule-b")
    with pytest.raises(InputError, match="molecule molecule-b"):
        fit(
            dataclasses.replace(task, metadata=other),
            undisturbed.checkpoint_path.parent,
            num_workers=2,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_checkpoint_of_an_earlier_run_is_named(
    two_cpus: None, task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    whole = undisturbed.checkpoint_path.read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"checkpoint\.pt: expected a complete checkpoint"):
        fit(task, tmp_path, num_workers=2)
