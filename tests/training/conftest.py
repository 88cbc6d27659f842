import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingTask

DIM = 3


class DenoisingScoreMatching(nn.Module):
    """A loss with a gradient inside, like the energy model's, on a bias-free potential."""

    shared: frozenset[str] = frozenset({"scale"})

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.potential = nn.Sequential(
            nn.Linear(dim, 16),
            nn.SiLU(),
            nn.Linear(16, 16),
            nn.SiLU(),
            nn.Linear(16, 1, bias=False),
        )

    def draw(
        self, x_data: Tensor, generator: torch.Generator, common: torch.Generator
    ) -> dict[str, Tensor]:
        return {
            "x_data": x_data,
            "x_noise": torch.randn(x_data.shape, generator=generator),
            "scale": torch.rand(1, generator=common),
        }

    def forward(self, x_data: Tensor, x_noise: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = (x_data + (0.5 + scale) * x_noise).requires_grad_()
        (score,) = torch.autograd.grad(self.potential(x).sum(), x, create_graph=True)
        loss = ((score + x_noise / (0.5 + scale)) ** 2).sum(-1).mean()
        return {"loss": loss, "score": loss.detach()}


class Diverging(DenoisingScoreMatching):
    """Has no finite loss at one step, or only no finite gradient."""

    def __init__(self, dim: int, at_step: int, what: str = "loss") -> None:
        super().__init__(dim)
        self.steps_left, self.what = at_step, what

    def forward(self, x_data: Tensor, x_noise: Tensor, scale: Tensor) -> dict[str, Tensor]:
        self.steps_left -= 1
        losses = super().forward(x_data, x_noise, scale)
        if self.steps_left:
            return losses
        loss = losses["loss"]
        # The slope of a root at zero is infinite, and infinity times zero is not a number.
        return losses | {
            "loss": loss * math.nan if self.what == "loss" else loss + (0 * loss).sqrt()
        }


@pytest.fixture
def diverging() -> type[nn.Module]:
    return Diverging


@pytest.fixture
def settings() -> TrainSettings:
    return TrainSettings(
        num_steps=40,
        global_batch_size=32,
        learning_rate=3e-3,
        warmup_steps=5,
        checkpoint_interval=12,
        report_interval=5,
        seed=3,
    )


@pytest.fixture
def task(tmp_path: Path, settings: TrainSettings) -> TrainingTask:
    data_path = tmp_path / "z.npy"
    np.save(data_path, np.random.default_rng(0).standard_normal((500, DIM)).astype(np.float32))
    metadata = TrainingMetadata("energy", "molecule-a", {"dim": DIM})
    return TrainingTask(partial(DenoisingScoreMatching, DIM), data_path, settings, metadata)
