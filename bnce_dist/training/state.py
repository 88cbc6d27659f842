"""What changes while a model trains."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bnce_dist.training.optimizer import build_optimizers
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import Record


class TrainState:
    """The weights, their moving average, the optimisers and how far they have come.

    Args:
        objective: Holds the model; already on its device.
        settings: How it is trained.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        self.objective = objective
        self.optimizers = build_optimizers(objective, settings)
        self.step = 0
        self.history: list[Record] = []
        self._ema = AveragedModel(objective, multi_avg_fn=warmed_up_ema(settings.ema_decay))

    @property
    def averaged(self) -> nn.Module:
        """The objective with the averaged weights."""
        return self._ema.module

    def update_average(self) -> None:
        """Move the averaged weights towards the present ones."""
        self._ema.update_parameters(self.objective)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types and tensors."""
        return {
            "step": self.step,
            "model": self.objective.state_dict(),
            "ema": self.averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "history": self.history,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take up a state that ``state_dict`` returned."""
        self.step = content["step"]
        self.history = list(content["history"])
        self.objective.load_state_dict(content["model"])
        self.averaged.load_state_dict(content["ema"])
        self._ema.n_averaged.fill_(self.step)
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)


def warmed_up_ema(decay: float) -> Any:
    r"""Return an averaging rule for ``AveragedModel`` that forgets the first weights early.

    .. math:: d_n = \min\left(d, \frac{1 + n}{10 + n}\right)

    A plain average over fewer than :math:`1 / (1 - d)` steps would mostly be initial weights.
    """

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor) -> None:
        count = int(num_averaged)
        rule = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))
        rule(list(averaged), list(current), count)

    return update
