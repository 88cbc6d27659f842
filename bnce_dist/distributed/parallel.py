"""One function makes a plain single-device objective train on many ranks."""

import contextlib
import os
from typing import cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
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


class Sharded(SingleDevice):
    """Every rank holds an equal part of every weight, its gradient and its optimiser state.

    The objective is sharded as one unit: its weights are whole from the forward pass until the
    backward pass ends, because a gradient inside the loss needs them in between.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        device = next(objective.parameters()).device
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        frozen = {weight for weight in objective.parameters() if not weight.requires_grad}
        fully_shard(objective, mesh=mesh, ignored_params=frozen)  # in place
        super().__init__(objective, settings)

    def accumulate(
        self, batch: dict[str, Tensor], *, fraction: float, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradient of a part; ranks exchange theirs with the last one."""
        cast(FSDPModule, self.objective).set_requires_gradient_sync(is_last)
        return super().accumulate(batch, fraction=fraction, is_last=is_last)

    def gather(self, name: str, shard: Tensor) -> Tensor:
        """Return the whole tensor."""
        return cast(DTensor, shard).full_tensor()

    def scatter(self, name: str, whole: Tensor) -> Tensor:
        """Return a copy of this rank's part."""
        like = cast(DTensor, self.weights[name])
        whole = super().scatter(name, whole)
        # Every rank has read the checkpoint, so nothing needs to be sent.
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def _clip(self) -> Tensor:
        return cast(DTensor, super()._clip()).full_tensor()
