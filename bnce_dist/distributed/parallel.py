"""One function makes a plain single-device objective train on many ranks."""

import contextlib
import os

import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bnce_dist.pipeline.cluster import Parallelism
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.strategy import SingleDevice


def parallelise(
    *, objective: nn.Module, settings: TrainSettings, parallelism: Parallelism
) -> SingleDevice:
    """Make an objective train on all ranks of the default process group.

    Args:
        objective: On this rank's device, with the same weights on every rank.
        settings: How it is trained.
        parallelism: How the ranks share it.

    Raises: InputError: the strategy cannot train this.
    """
    parallelism.require_supported(lambda: objective, settings)
    match parallelism.strategy:
        case "ddp" if torch.distributed.get_world_size() > 1:
            return DataParallel(objective, settings)
        case "ddp":
            return SingleDevice(objective, settings)
        case "sharded":
            # Only here, because importing it takes most of a second in every process of a group.
            from bnce_dist.distributed.sharded import Sharded

            return Sharded(objective, settings)
        case "deepspeed":
            # Only here, because importing it takes seconds and it need not be installed.
            os.environ.setdefault("DS_ACCELERATOR", next(objective.parameters()).device.type)
            from bnce_dist.distributed.zero import PartitionedOptimizer, PartitionedWeights

            if parallelism.zero_stage == 3:
                return PartitionedWeights(objective, settings)
            return PartitionedOptimizer(objective, settings, parallelism.zero_stage)


class DataParallel(SingleDevice):
    """Every rank holds everything; gradients are averaged while they are computed."""

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        super().__init__(objective, settings)
        # Buffers are constants; sending them would make the ranks wait once more per step.
        self._ddp = DistributedDataParallel(objective, broadcast_buffers=False)
        self.model = self._ddp

    def accumulate(
        self, batch: dict[str, Tensor], *, fraction: float, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradient of a part; ranks exchange theirs with the last one."""
        with contextlib.nullcontext() if is_last else self._ddp.no_sync():
            return super().accumulate(batch, fraction=fraction, is_last=is_last)
