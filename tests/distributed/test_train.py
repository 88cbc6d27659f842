import dataclasses
import importlib.util
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.distributed import train
from bnce_dist.distributed.executor import RayExecutor
from bnce_dist.distributed.train import _run_config, fit
from bnce_dist.pipeline.cluster import Parallelism
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.task import Record, TrainingResult, TrainingTask

pytestmark = [pytest.mark.ray, pytest.mark.slow]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (make setup-deepspeed)",
)

# Sums over the batch in another order: measured 5e-8 after 60 steps of Adam at 1e-3.
PARITY = {"rtol": 0.0, "atol": 1e-6}


def losses(history: list[Record]) -> list[tuple[float, float, float]]:
    return [(record["step"], record["loss"], record["infonce"]) for record in history]


def squared_weights(result: TrainingResult) -> dict[float, float]:
    """Return what was validated, by step."""
    name = "squared_weights"
    return {record["step"]: record[name] for record in result.history if name in record}


def assert_same_training(got: TrainingResult, expected: TrainingResult) -> None:
    for left, right in zip(losses(got.history), losses(expected.history), strict=True):
        assert left == pytest.approx(right, rel=1e-5)
    left, right = (load_checkpoint(result.checkpoint_path) for result in (got, expected))
    for weights in ("model", "ema"):
        for name, value in right[weights].items():
            torch.testing.assert_close(left[weights][name], value, **PARITY)


def test_two_workers_train_what_one_process_trains(
    task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    alone = LocalExecutor().fit(task, tmp_path)
    assert_same_training(undisturbed, alone)
    expected = load_checkpoint(alone.checkpoint_path)
    initial = task.create_objective().state_dict()
    moved = max(
        float((value - initial[name]).abs().max())
        for name, value in expected["model"].items()
        if value.is_floating_point() and value.numel()
    )
    assert moved > 0.01, "parity means nothing if the weights did not move"
    assert [step for step, *_ in losses(undisturbed.history)] == list(range(2, 61, 2))
    assert squared_weights(undisturbed) == pytest.approx(squared_weights(alone), rel=1e-5)
    assert list(squared_weights(undisturbed)) == [10, 20, 30, 40, 50, 60]


def test_a_finished_training_starts_no_workers(
    task: TrainingTask, undisturbed: TrainingResult
) -> None:
    again = RayExecutor(2).fit(task, undisturbed.checkpoint_path.parent)
    assert again.seconds < 2
    assert losses(again.history) == losses(undisturbed.history)


def build_deadly() -> nn.Module:
    os._exit(9)


def test_a_worker_that_always_dies_is_one_line(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
    task = dataclasses.replace(task, build_objective=build_deadly)
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


class KillsAtTheStart(WorkerGroupCallback):
    """Ends a worker after its start and before its work, as bad luck may."""

    def after_worker_group_start(self, worker_group: Any) -> None:
        ray.kill(worker_group.get_workers()[-1].actor)


def test_a_group_that_dies_before_it_begins_gives_its_cores_back(
    two_cpus: None, task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_killer(*arguments: Any) -> ray.train.RunConfig:
        config = _run_config(*arguments)
        config.callbacks.append(KillsAtTheStart())
        return config

    with monkeypatch.context() as patched:
        patched.setattr("bnce_dist.distributed.train._run_config", with_killer)
        with pytest.raises(InputError, match="expected workers that live"):
            fit(task, tmp_path / "run", num_workers=2)
    # Two cores have room for another two only if nothing of the first is left.
    result = fit(task, tmp_path / "run", num_workers=2)
    assert result.history[-1]["step"] == task.settings.num_steps


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


@pytest.mark.parametrize(("most", "num_samples", "expected"), [(2, 64, 2), (2, 63, 1), (1, 64, 1)])
def test_as_many_of_the_workers_train_as_the_batch_divides_among(
    two_cpus: None,
    task: TrainingTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    num_samples: int,
    expected: int,
) -> None:
    """A member of a fleet gets a share of the workers that nobody chose."""
    calls: list[int] = []
    monkeypatch.setattr(train, "fit", lambda *_, num_workers, **__: calls.append(num_workers))
    data_path = tmp_path / "z.npy"
    np.save(data_path, task.open_data()[:num_samples])
    RayExecutor(most).fit(dataclasses.replace(task, data_path=data_path), tmp_path)
    assert calls == [expected]


def test_divergence_on_one_rank_ends_all_at_once(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
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


def test_parts_that_do_not_divide_the_batch(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
    thirds = Parallelism(accumulation_steps=3)
    with pytest.raises(InputError, match=r"workers \(2\) times accumulation_steps \(3\), got 64"):
        fit(task, tmp_path, num_workers=2, parallelism=thirds)


@needs_deepspeed
def test_zero_3_is_refused_where_the_loss_holds_a_gradient(
    two_cpus: None, task: TrainingTask, tmp_path: Path
) -> None:
    zero3 = Parallelism(strategy="deepspeed", zero_stage=3)
    with pytest.raises(InputError, match=r"zero_stage for .*EnergyMatching.*got 3.*sharded"):
        fit(task, tmp_path, num_workers=2, parallelism=zero3)


@needs_deepspeed
def test_ray_train_goes_on_where_one_process_stopped(
    task: TrainingTask, undisturbed: TrainingResult, tmp_path: Path
) -> None:
    def stop_at_step_40(record: Record) -> None:
        if record["step"] >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(accumulation_steps=2).fit(task, tmp_path, report=stop_at_step_40)
    records: list[Record] = []
    executor = RayExecutor(2, Parallelism(strategy="deepspeed", zero_stage=2))
    result = executor.fit(task, tmp_path, report=records.append)
    assert records[0]["step"] == 42
    assert_same_training(result, undisturbed)
