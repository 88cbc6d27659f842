"""What it takes to train a model, and how it is done on a single device."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from bnce_dist.training.divergence import GradientWatch
from bnce_dist.training.optimizer import build_optimizers, set_learning_rate, step_unless
from bnce_dist.training.settings import TrainSettings

OptimizerState = dict[str, dict[str, Tensor]]
"""What the optimisers keep of every weight, under the weight's name."""


class SingleDevice:
    """An objective with its optimisers on one device, and what other strategies replace.

    A rank may hold only a *shard* of every weight and of what belongs to it. Checkpoints hold
    whole tensors, so that they fit every strategy and any number of ranks. Ranks call all
    methods together, in the same order.

    Args:
        objective: Holds the model; already on its device.
        settings: How it is trained.
    """

    may_fuse: ClassVar[bool] = True

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        self.objective = objective
        self.settings = settings
        self.model = objective  # what is called; strategies that wrap the objective replace it
        self.weights = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        # Frozen weights and buffers, which stay whole in here even where a strategy cuts them up.
        self.constants = {n: v for n, v in objective.state_dict().items() if n not in self.weights}
        self.optimizers = build_optimizers(objective, settings, may_fuse=self.may_fuse)
        self.gradients = GradientWatch(next(objective.parameters()).device)

    def accumulate(
        self, batch: dict[str, Tensor], *, fraction: float, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradient of a part of the rank's samples.

        Args:
            batch: Arguments of the objective.
            fraction: Weight of the part's mean in the mean over the ranks' samples.
            is_last: Whether the gradient of the step is then complete.

        Returns: The mean loss of the part and its components, detached.
        """
        with self._arithmetic():
            losses = self.model(**batch)
        self._backward(losses["loss"] * fraction)
        return {name: value.detach() for name, value in losses.items()}

    def step(self, learning_rate: float) -> None:
        """Clip the gradient, note its norm and let the optimisers move the weights."""
        self.gradients.note(self._clip())
        set_learning_rate(self.optimizers, learning_rate)
        for optimizer in self.optimizers:
            step_unless(self.gradients.stopped, optimizer)
            optimizer.zero_grad()

    def shards(self) -> dict[str, Tensor]:
        """Return this rank's part of every weight: the memory itself, not a copy."""
        return {name: weight.detach() for name, weight in self.weights.items()}

    def gather(self, name: str, shard: Tensor) -> Tensor:
        """Return the whole of what the ranks hold shards of, shaped as the named weight."""
        return shard

    def scatter(self, name: str, whole: Tensor) -> Tensor:
        """Return a copy of this rank's part of what is shaped as the named weight."""
        weight = self.weights[name]
        # Files of earlier versions hold vectors of one entry as numbers.
        return whole.to(weight.device, copy=True).view(weight.shape)

    def optimizer_state(self) -> OptimizerState:
        """Return the whole state of the optimisers."""
        return {
            name: {
                key: value if key == "step" else self.gather(name, value)
                for key, value in optimizer.state[weight].items()
            }
            for optimizer in self.optimizers
            for name, weight in self._in(optimizer)
        }

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Take up what ``optimizer_state`` returned, of any strategy."""
        for optimizer in self.optimizers:
            shards = {
                index: {
                    key: value.clone() if key == "step" else self.scatter(name, value)
                    for key, value in state[name].items()
                }
                for index, (name, _) in enumerate(self._in(optimizer))
            }
            optimizer.load_state_dict(optimizer.state_dict() | {"state": shards})

    def _in(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights of an optimiser in its order, with their names."""
        names = {weight: name for name, weight in self.weights.items()}
        for group in optimizer.param_groups:
            for weight in group["params"]:
                yield names[weight], weight

    def _arithmetic(self) -> AbstractContextManager[None]:
        """Return what the forward pass runs in."""
        if self.settings.precision == "fp32":
            return nullcontext()
        device = next(iter(self.weights.values())).device
        return torch.autocast(device.type, torch.bfloat16)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _clip(self) -> Tensor:
        """Limit the norm of the gradient over all ranks and return what it was."""
        limit = self.settings.gradient_clip or math.inf
        return nn.utils.clip_grad_norm_(self.weights.values(), limit)
