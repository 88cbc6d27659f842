"""What changes while a model trains."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bnce_dist.training.strategy import SingleDevice
from bnce_dist.training.task import Record


class TrainState:
    """The weights, their moving average, the optimisers and how far they have come.

    All ranks ask for state dicts together.

    Args:
        strategy: Holds the weights and the optimisers.
        resume: Content of a checkpoint whose weights the strategy was made with.
    """

    def __init__(self, strategy: SingleDevice, resume: Mapping[str, Any] | None = None) -> None:
        self.strategy = strategy
        self.step = 0
        self.history: list[Record] = []
        self._average = {name: shard.clone() for name, shard in strategy.shards().items()}
        if resume is not None:
            self.step = resume["step"]
            self.history = list(resume["history"])
            self._average = {n: strategy.scatter(n, resume["ema"][n]) for n in self._average}
            strategy.load_optimizer_state(resume["optimizer"])

    def update_average(self) -> None:
        r"""Move the averaged weights towards the present ones, after a step.

        .. math:: d_n = \min\left(d, \frac{1 + n}{10 + n}\right)

        with :math:`d` the setting ``ema_decay`` and :math:`d_0 = 0`. A plain average over fewer
        than :math:`1 / (1 - d)` steps would mostly be initial weights.
        """
        decay = self.strategy.settings.ema_decay
        warmed_up = min(decay, (1 + self.step) / (10 + self.step)) if self.step else 0.0
        current = list(self.strategy.shards().values())
        get_ema_multi_avg_fn(warmed_up)(list(self._average.values()), current, self.step)

    def averaged_state_dict(self) -> dict[str, Tensor]:
        """Return the objective's state with the averaged weights, on the CPU."""
        return self._whole(self._average)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as plain types and tensors on the CPU."""
        strategy = self.strategy
        return {
            "step": self.step,
            "model": self._whole(strategy.shards()),
            "ema": self.averaged_state_dict(),
            "optimizer": {
                name: {key: _on_cpu(value) for key, value in state.items()}
                for name, state in strategy.optimizer_state().items()
            },
            "history": list(self.history),
        }

    def _whole(self, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the objective's state with the weights that the ranks hold shards of."""
        whole = {n: _on_cpu(self.strategy.gather(n, shard)) for n, shard in shards.items()}
        constants = self.strategy.constants
        return {
            name: whole[name] if name in whole else _on_cpu(constants[name])
            for name in self.strategy.objective.state_dict()
        }


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
