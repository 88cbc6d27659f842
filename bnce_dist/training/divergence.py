"""Gradients that are not finite: noted where they are computed, looked at when a record is due.

A look at every step would make the host wait for the device at every step. Until it looks, the
steps that follow do no harm: what they leave is never saved.
"""

import math

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.training.settings import TrainSettings


class TrainingDiverged(InputError):
    """The loss or its gradient is not finite; training again would end the same way."""


class GradientWatch:
    """Notes the first gradient that is not finite, without waiting for its device.

    Args:
        device: Of the gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self._norm = torch.zeros((), device=device)  # the last one, or the first bad one
        self._num_stopped = torch.zeros((), dtype=torch.int64, device=device)
        self.stopped = torch.zeros((), device=device)
        """1 from the first bad gradient on, 0 before: as torch's optimisers take ``found_inf``."""

    def note(self, norm: Tensor) -> None:
        """Take in the norm of a step's gradient over all ranks, a number on the device."""
        self._norm = torch.where(self.stopped > 0, self._norm, norm)
        is_bad = ~self._norm.isfinite()
        self._num_stopped += is_bad
        self.stopped = is_bad.float()

    def require_finite(self, step: int, settings: TrainSettings) -> None:
        """Wait for the device and look at what was noted.

        Gradients are means over the ranks, so all of them note the same.

        Args:
            step: How many steps are done.
            settings: Of the training.

        Raises: TrainingDiverged: a gradient was not finite; it names its step.
        """
        num_stopped = int(self._num_stopped)
        if num_stopped:
            require_finite(float(self._norm), step - num_stopped + 1, settings)


def require_finite(value: float, step: int, settings: TrainSettings) -> None:
    """Refuse a loss, or the norm of a gradient, that is not finite.

    Raises: TrainingDiverged: it is not; it says which checkpoint is good.
    """
    if math.isfinite(value):
        return
    last_good = (step - 1) // settings.checkpoint_interval * settings.checkpoint_interval
    raise TrainingDiverged(
        f"training at step {step}",
        expected="a finite loss and gradient",
        got=value,
        remedy="lower learning_rate or gradient_clip, or check the data; "
        + (f"the checkpoint of step {last_good} is intact" if last_good else "nothing was saved"),
    )
