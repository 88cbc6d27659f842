import dataclasses
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnce_dist.core.errors import InputError
from bnce_dist.training import local
from bnce_dist.training.checkpoint import load_checkpoint
from bnce_dist.training.draws import draw_batch
from bnce_dist.training.loop import train
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice
from bnce_dist.training.task import TrainingTask


def without_timing(history: list[dict[str, float]]) -> list[dict[str, float]]:
    timing = {"samples_per_second", "cpu_seconds"}
    return [{k: v for k, v in record.items() if k not in timing} for record in history]


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    for name, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[name]), name


def test_the_plain_adam_step_written_out_gives_the_same_weights(task: TrainingTask) -> None:
    settings = task.settings.model_copy(
        update={"num_steps": 6, "warmup_steps": 0, "gradient_clip": None}
    )
    trained = train(task.create_objective(), task.open_data(), settings).strategy.objective

    expected = task.create_objective()
    optimizer = torch.optim.Adam(expected.parameters())
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / 6))
        batch = draw_batch(expected, task.open_data(), settings, step, slice(None))
        gradients = torch.autograd.grad(expected(**batch)["loss"], list(expected.parameters()))
        for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=0, atol=1e-6)


def test_the_mean_gradient_of_two_ranks_is_the_gradient_of_one(task: TrainingTask) -> None:
    objective, data = task.create_objective(), task.open_data()

    def gradient(part: slice) -> torch.Tensor:
        loss = objective(**draw_batch(objective, data, task.settings, 7, part))["loss"]
        gradients = torch.autograd.grad(loss, list(objective.parameters()))
        return torch.cat([g.flatten() for g in gradients])

    mean = (gradient(slice(16)) + gradient(slice(16, 32))) / 2
    torch.testing.assert_close(mean, gradient(slice(32)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    task: TrainingTask, tmp_path: Path, optimizer: str
) -> None:
    task = dataclasses.replace(
        task, settings=task.settings.model_copy(update={"optimizer": optimizer})
    )
    local.fit(task, tmp_path / "whole")

    def stop_at_step_30(record: dict[str, float]) -> None:
        if record["step"] >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.fit(task, tmp_path / "halted", report=stop_at_step_30)
    assert load_checkpoint(tmp_path / "halted" / "checkpoint.pt")["step"] == 24
    local.fit(task, tmp_path / "halted")

    whole, halted = (
        load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "halted")
    )
    for weights in ("model", "ema"):
        for name, value in whole[weights].items():
            assert torch.equal(value, halted[weights][name]), (weights, name)
    assert without_timing(whole["history"]) == without_timing(halted["history"])


def test_a_finished_training_is_not_done_again(task: TrainingTask, tmp_path: Path) -> None:
    first = local.fit(task, tmp_path)
    written = first.checkpoint_path.stat().st_mtime_ns
    records: list[dict[str, float]] = []
    second = local.fit(task, tmp_path, report=records.append)
    assert (second.history, records) == (first.history, [])
    assert second.checkpoint_path.stat().st_mtime_ns == written


def test_history_averages_over_its_interval(task: TrainingTask) -> None:
    every = train(
        task.create_objective(),
        task.open_data(),
        task.settings.model_copy(update={"report_interval": 1}),
    ).history
    fifth = train(task.create_objective(), task.open_data(), task.settings).history
    assert [record["step"] for record in fifth] == [5, 10, 12, 15, 20, 24, 25, 30, 35, 36, 40]
    assert fifth[0]["loss"] == pytest.approx(np.mean([r["loss"] for r in every[:5]]), rel=1e-6)
    assert fifth[2]["loss"] == pytest.approx(np.mean([r["loss"] for r in every[10:12]]), rel=1e-6)
    assert fifth[-1]["samples_per_second"] > 0


def test_the_records_of_a_training_add_up_to_its_processor_time(task: TrainingTask) -> None:
    objective, data = task.create_objective(), task.open_data()
    started = time.process_time()
    history = train(objective, data, task.settings).history
    elapsed = time.process_time() - started
    assert sum(record["cpu_seconds"] for record in history) == pytest.approx(elapsed, rel=0.2)


def test_training_comes_close_to_the_exact_score(task: TrainingTask) -> None:
    settings = task.settings.model_copy(update={"num_steps": 400, "global_batch_size": 64})
    state = train(task.create_objective(), task.open_data(), settings)

    # Data N(0, I) plus noise of width s have the score -x / (1 + s^2), whose loss is
    # d (1 / s^2 - 1 / (1 + s^2)); here d = 3 and s is uniform in (0.5, 1.5).
    widths = np.linspace(0.5, 1.5, 101)
    exact = 3 * np.mean(1 / widths**2 - 1 / (1 + widths**2))
    without_model = 3 * np.mean(1 / widths**2)
    x_data, x_noise = torch.randn(2, 1000, 3, generator=torch.manual_seed(0))

    def mean_loss(weights: str) -> float:
        objective = task.build_objective()
        objective.load_state_dict(state.state_dict()[weights])
        scales = torch.from_numpy(widths - 0.5).float()
        return np.mean([objective(x_data, x_noise, s)["score"].item() for s in scales[:, None]])

    for weights in ("model", "ema"):
        # The network does not see s, so it stays a little above.
        assert exact - 0.1 < mean_loss(weights) < exact + 0.3 < without_model


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(
    ("at_step", "saved"),
    [(3, "nothing was saved"), (24, "step 12 is"), (26, "step 24 is"), (36, "step 24 is")],
)
def test_a_step_that_is_not_finite_is_named_and_nothing_is_spoilt(
    task: TrainingTask,
    tmp_path: Path,
    diverging: type[nn.Module],
    at_step: int,
    saved: str,
    what: str,
) -> None:
    """Looked at when a record or checkpoint is due: every 5 and every 12 steps."""
    whole = local.fit(task, tmp_path / "whole").history
    task = dataclasses.replace(task, build_objective=partial(diverging, 3, at_step, what))
    with pytest.raises(InputError, match=f"at step {at_step}: .*finite.*nan.*{saved}"):
        local.fit(task, tmp_path)
    if at_step > 12:
        checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
        assert f"step {checkpoint['step']} is" == saved
        good = [record for record in whole if record["step"] <= checkpoint["step"]]
        assert without_timing(checkpoint["history"]) == without_timing(good)
        assert all(bool(v.isfinite().all()) for v in checkpoint["model"].values())
    else:
        assert not (tmp_path / "checkpoint.pt").exists()


def squared_weights(objective: nn.Module) -> dict[str, float]:
    weights = nn.utils.parameters_to_vector(objective.parameters())
    return {"squared_weights": weights.square().sum().item()}


def test_validation_sees_the_averaged_weights_of_every_checkpoint(
    task: TrainingTask, tmp_path: Path
) -> None:
    task = dataclasses.replace(task, validate=squared_weights)
    path = tmp_path / "checkpoint.pt"
    judged: list[int] = []

    def compare_with_file(record: dict[str, float]) -> None:
        if "squared_weights" in record:
            content = load_checkpoint(path)
            assert content["step"] == record["step"]
            assert without_timing(content["history"])[-1] == without_timing([record])[0]
            objective = task.build_objective()
            objective.load_state_dict(content["ema"])
            assert squared_weights(objective)["squared_weights"] == record["squared_weights"]
            judged.append(content["step"])

    local.fit(task, tmp_path, report=compare_with_file)
    assert judged == [12, 24, 36, 40]


def test_validation_changes_nothing(task: TrainingTask) -> None:
    objective, data = task.create_objective(), task.open_data()
    without = train(objective, data, task.settings, rank=0).history
    judged = train(
        task.create_objective(), data, task.settings, validate=lambda module: {"one": 1.0}
    ).history
    for record in judged:
        record.pop("one", None)
    assert without_timing(judged) == without_timing(without)


def test_a_validation_cannot_replace_a_loss(task: TrainingTask) -> None:
    with pytest.raises(InputError, match=r"names other than step, loss.*got score"):
        train(
            task.create_objective(),
            task.open_data(),
            task.settings,
            validate=lambda objective: {"score": 0.0},
        )


def test_a_batch_that_leaves_a_rank_without_samples_is_refused(task: TrainingTask) -> None:
    too_many = task.settings.global_batch_size + 1
    with pytest.raises(InputError, match=f"at least {too_many}"):
        train(task.create_objective(), task.open_data(), task.settings, world_size=too_many)


def test_bf16_trains_in_bf16_and_keeps_fp32_weights(task: TrainingTask) -> None:
    settings = task.settings.model_copy(update={"precision": "bf16"})
    exact = train(task.create_objective(), task.open_data(), task.settings).strategy.objective
    rounded = train(task.create_objective(), task.open_data(), settings).strategy.objective
    for name, value in exact.state_dict().items():
        other = rounded.state_dict()[name]
        assert other.dtype == torch.float32
        assert not torch.equal(other, value)
        torch.testing.assert_close(other, value, rtol=0, atol=0.05)


def test_initial_weights_depend_on_the_seed_alone(task: TrainingTask) -> None:
    torch.manual_seed(1)
    first = task.create_objective()
    torch.manual_seed(2)
    assert_same_weights(first, task.create_objective())
    other_seed = task.settings.model_copy(update={"seed": 4})
    other = dataclasses.replace(task, settings=other_seed).create_objective()
    assert not torch.equal(first.potential[0].weight, other.potential[0].weight)


@pytest.mark.parametrize("decay_limit", [0.5, 0.0])
def test_averaged_weights_follow_the_warmed_up_decay(
    settings: TrainSettings, decay_limit: float
) -> None:
    module = nn.Linear(1, 1, bias=False)
    settings = settings.model_copy(update={"ema_decay": decay_limit})
    state = TrainState(SingleDevice(module, settings))
    expected = 0.0
    for step, weight in enumerate([1.0, 5.0, -2.0, 7.0, 3.0, 8.0, 0.5]):
        nn.init.constant_(module.weight, weight)
        state.update_average()
        state.step += 1
        decay = 0.0 if step == 0 else min(decay_limit, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
        assert float(state.state_dict()["ema"]["weight"]) == pytest.approx(expected, rel=1e-6)
