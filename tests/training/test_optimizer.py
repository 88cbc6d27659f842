import pytest
import torch
from torch import nn

from bnce_dist.training.optimizer import build_optimizers, learning_rate
from bnce_dist.training.settings import TrainSettings


def test_learning_rate_agrees_with_the_schedulers_of_torch() -> None:
    settings = TrainSettings(num_steps=50, warmup_steps=10, learning_rate=0.4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40),
        ],
        milestones=[10],
    )
    for step in range(50):
        assert learning_rate(step, settings) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_the_constant_schedule_stays_where_the_warmup_ends() -> None:
    settings = TrainSettings(num_steps=9, warmup_steps=4, learning_rate=0.4, schedule="constant")
    rates = [learning_rate(step, settings) for step in range(9)]
    assert rates == pytest.approx([0.1, 0.2, 0.3] + 6 * [0.4])


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    settings = TrainSettings(num_steps=10, warmup_steps=0, learning_rate=0.4)
    assert learning_rate(0, settings) == pytest.approx(0.4)


def test_muon_takes_the_matrices_and_adamw_everything_else() -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    settings = TrainSettings(num_steps=1000, optimizer="muon")
    muon, adamw = build_optimizers(module, settings)
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    in_adamw = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert in_muon == {id(module[0].weight)}
    assert in_adamw == {id(p) for p in module.parameters()} - in_muon

    (only,) = build_optimizers(module, settings.model_copy(update={"optimizer": "adamw"}))
    assert isinstance(only, torch.optim.AdamW)
