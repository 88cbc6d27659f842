import contextlib
import dataclasses
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.training import local
from bnce_dist.training.checkpoint import (
    branch_checkpoint,
    keep_last,
    load_checkpoint,
    load_resumable,
    save_checkpoint,
)
from bnce_dist.training.task import Record, TrainingMetadata, TrainingTask


@pytest.fixture
def path(task: TrainingTask, tmp_path: Path) -> Path:
    return local.fit(task, tmp_path).checkpoint_path


@pytest.fixture
def interrupted(task: TrainingTask, tmp_path: Path) -> Path:
    """The checkpoint of step 24 of 40."""

    def stop(record: Record) -> None:
        if record["step"] >= 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.fit(task, tmp_path / "interrupted", report=stop)
    return tmp_path / "interrupted" / "checkpoint.pt"


def test_a_checkpoint_rebuilds_both_sets_of_weights(task: TrainingTask, path: Path) -> None:
    content = load_checkpoint(path, metadata=task.metadata)
    objective = task.build_objective()
    objective.load_state_dict(content["ema"])
    assert not torch.equal(
        content["ema"]["potential.0.weight"], content["model"]["potential.0.weight"]
    )
    assert (content["step"], content["metadata"]["model"]) == (40, {"dim": 3})


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_left_alone(
    task: TrainingTask, path: Path, keep: float
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"checkpoint\.pt.*complete checkpoint.*delete it"):
        local.fit(task, path.parent)
    assert len(path.read_bytes()) == int(keep * len(whole))


def test_a_pickled_object_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"schema_version": 1, "code": local.fit}, path)
    with pytest.raises(InputError, match="complete checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"molecule": "molecule-b"}, "molecule molecule-b"),
        ({"stage": "emulator"}, "stage emulator"),
        ({"model": {"dim": 4}}, "model"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    task: TrainingTask, path: Path, change: dict[str, Any], named: str
) -> None:
    other: TrainingMetadata = dataclasses.replace(task.metadata, **change)
    with pytest.raises(InputError, match=named):
        load_checkpoint(path, metadata=other)


def test_other_settings_do_not_continue_a_run_but_other_intervals_do(
    task: TrainingTask, path: Path
) -> None:
    def with_settings(**change: Any) -> TrainingTask:
        return dataclasses.replace(task, settings=task.settings.model_copy(update=change))

    with pytest.raises(InputError, match=r"learning_rate 0\.01"):
        load_resumable(path, with_settings(learning_rate=0.01))
    load_resumable(path, with_settings(report_interval=7, checkpoint_interval=9))


def test_a_branch_differs_in_schedulable_settings_only(
    task: TrainingTask, path: Path, tmp_path: Path
) -> None:
    branch = tmp_path / "branch.pt"
    other = task.settings.model_copy(update={"learning_rate": 0.01})
    branch_checkpoint(path, branch, dataclasses.replace(task, settings=other))
    content = load_resumable(branch, dataclasses.replace(task, settings=other))
    whole = load_checkpoint(path)
    assert (content["step"], content["history"]) == (whole["step"], whole["history"])
    for name, value in whole["model"].items():
        assert torch.equal(content["model"][name], value)
    branch.unlink()
    another = dataclasses.replace(task, settings=other.model_copy(update={"num_steps": 50}))
    with pytest.raises(InputError, match="num_steps 50"):
        branch_checkpoint(path, branch, another)
    assert not branch.exists()


def test_another_schema_version_is_refused(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"schema_version": 3}, path)
    with pytest.raises(InputError, match=r"schema version 2.*schema version 3"):
        load_checkpoint(path)


def test_the_first_schema_is_still_resumed(
    task: TrainingTask, tmp_path: Path, interrupted: Path
) -> None:
    new = torch.load(interrupted, weights_only=True)
    moments = list(new["optimizer"].values())
    assert list(new["optimizer"]) == [n for n, _ in task.build_objective().named_parameters()]
    # It knew fewer settings, and numbered the weights in the order of the module.
    del new["optimizer"], new["settings"]["schedule"]
    optimizer = torch.optim.AdamW(task.build_objective().parameters(), 3e-3, weight_decay=0.0)
    old = optimizer.state_dict() | {"state": dict(enumerate(moments))}
    torch.save(new | {"schema_version": 1, "optimizers": [old]}, interrupted)

    history = local.fit(task, interrupted.parent).history
    whole = local.fit(task, tmp_path / "whole").history
    assert [r["loss"] for r in history] == [r["loss"] for r in whole]


def nothing(path: Path) -> None:
    path.unlink()


def text(path: Path) -> None:
    path.write_text("z")


def doubles(path: Path) -> None:
    np.save(path, np.zeros((4, 3)))


def one_column(path: Path) -> None:
    np.save(path, np.zeros(4, dtype=np.float32))


@pytest.mark.parametrize("spoil", [nothing, text, doubles, one_column])
def test_unusable_training_data_are_refused(
    task: TrainingTask, spoil: Callable[[Path], None]
) -> None:
    spoil(task.data_path)
    with pytest.raises(InputError, match=r"training data .*z\.npy"):
        task.open_data()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 1 kB: a write beyond that fails as on a full disk.

    That holds for the file that the tests' own output may go to, so it must end with the write.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    task: TrainingTask, path: Path
) -> None:
    whole, content = path.read_bytes(), load_checkpoint(path)
    assert len(whole) > 1024
    match = r"cannot write \S*checkpoint\.pt.*File too large; free"
    with pytest.raises(InputError, match=match), small_files():
        save_checkpoint(path, content, task)
    assert path.read_bytes() == whole
    assert list(path.parent.glob("*.part")) == []


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
    keep_last(tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1000
    assert not run.exists()


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
        keep_last(tmp_path)
    assert early.exists()
    assert late.exists()
    early.write_bytes(whole)
    keep_last(tmp_path)
    assert "step_00001000" in caplog.text
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 500


def test_this_process_goes_on_where_a_group_of_workers_was_interrupted(
    task: TrainingTask, tmp_path: Path, interrupted: Path
) -> None:
    folder = tmp_path / "group"
    left = folder / "ray_train_1" / "step_00000024" / "checkpoint.pt"
    left.parent.mkdir(parents=True)
    interrupted.replace(left)
    records: list[Record] = []
    result = local.fit(task, folder, report=records.append)
    assert records[0]["step"] == 25
    assert result.history[-1]["step"] == 40
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
