"""Less memory for more arithmetic: activations that the backward pass computes again."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Output = TypeVar("Output")


class Recomputing(nn.Module):
    """A network that can forget the inside of its parts until the backward pass needs it.

    Whether it does is no property of the model: no number and no file depends on it.
    """

    activation_checkpointing = False

    def recomputed(self, part: Callable[..., Output], *inputs: object) -> Output:
        """Return ``part(*inputs)``, and keep nothing else of it where gradients will be taken."""
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return part(*inputs)
        # No part draws random numbers.
        return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)


def with_activation_checkpointing(build_objective: Callable[[], nn.Module]) -> nn.Module:
    """Return the objective; its networks that can recompute their activations will."""
    objective = build_objective()
    for module in objective.modules():
        if isinstance(module, Recomputing):
            module.activation_checkpointing = True
    return objective
