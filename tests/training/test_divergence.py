import math

import pytest
import torch
from torch import Tensor, nn

from bnce_dist.training import optimizer as optimizers
from bnce_dist.training.divergence import GradientWatch, TrainingDiverged
from bnce_dist.training.loop import take_step
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice

SETTINGS = TrainSettings(num_steps=1000, warmup_steps=0, checkpoint_interval=10)


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.layers(x) - 1).square().mean()}


def take(state: TrainState, scale: float) -> None:
    x = scale * torch.randn(8, 3, generator=torch.Generator().manual_seed(state.step))
    take_step(state, [(1.0, {"x": x})], state.strategy.settings)


def moving(state: TrainState) -> dict[str, Tensor]:
    content = state.state_dict()
    moments = {
        f"{key} of {name}": value
        for name, values in content["optimizer"].items()
        for key, value in values.items()
    }
    return content["model"] | moments


def test_the_first_bad_gradient_is_named_whatever_follows() -> None:
    watch = GradientWatch(torch.device("cpu"))
    for norm in (1.0, 1e30, math.inf, 2.0, math.nan):
        watch.note(torch.tensor(norm))
    with pytest.raises(TrainingDiverged, match=r"step 33: .*got inf; .*of step 30 is intact"):
        watch.require_finite(35, SETTINGS)


def test_finite_gradients_are_no_reason_to_stop() -> None:
    watch = GradientWatch(torch.device("cpu"))
    for norm in (0.0, 1e38):
        watch.note(torch.tensor(norm))
    watch.require_finite(2, SETTINGS)
    assert not watch.stopped


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("optimizer", ["adamw", "fused", "muon"])
def test_nothing_moves_from_a_bad_step_on(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, bad: float
) -> None:
    if optimizer == "fused":  # as on a GPU
        monkeypatch.setattr(optimizers, "FUSED_ON", {"cpu"})
    name = "muon" if optimizer == "muon" else "adamw"
    settings = SETTINGS.model_copy(update={"optimizer": name, "weight_decay": 0.1})
    state = TrainState(SingleDevice(Regression(), settings))
    assert any(o.defaults.get("fused") for o in state.strategy.optimizers) == (optimizer == "fused")
    for _ in range(3):
        take(state, scale=1.0)
    before, average = moving(state), state.averaged_state_dict()
    for scale in (bad, 1.0, 1.0):
        take(state, scale)
    after = moving(state)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    # It comes closer to weights that stand still.
    for name, value in state.averaged_state_dict().items():
        assert bool(((value - before[name]).abs() <= (average[name] - before[name]).abs()).all())
    with pytest.raises(TrainingDiverged, match="step 4: "):
        state.strategy.gradients.require_finite(state.step, settings)


def test_a_fused_training_goes_on_where_another_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU from a checkpoint of a CPU, and back."""

    def train_on(resume: dict[str, Tensor] | None, *, fused: bool) -> dict[str, Tensor]:
        monkeypatch.setattr(optimizers, "FUSED_ON", {"cpu"} if fused else set())
        torch.manual_seed(0)
        module = Regression()
        if resume is not None:
            module.load_state_dict(resume["model"])
        state = TrainState(SingleDevice(module, SETTINGS), resume)
        for _ in range(3):
            take(state, scale=1.0)
        return state.state_dict()

    mixed = train_on(train_on(train_on(None, fused=False), fused=True), fused=False)
    plain = train_on(train_on(train_on(None, fused=False), fused=False), fused=False)
    for name, value in plain["model"].items():
        torch.testing.assert_close(mixed["model"][name], value, rtol=0, atol=1e-6)
    assert {float(values["step"]) for values in mixed["optimizer"].values()} == {9.0}
