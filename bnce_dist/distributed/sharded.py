"""Models that are cut up over the ranks, by FSDP2."""

from typing import cast

import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.strategy import SingleDevice


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
        """Return the whole tensor.

        ``torch.distributed.checkpoint.state_dict`` would do it for the module and its optimiser,
        but neither for the moving average nor for what DeepSpeed cut up.
        """
        return cast(DTensor, shard).full_tensor()

    def scatter(self, name: str, whole: Tensor) -> Tensor:
        """Return a copy of this rank's part."""
        like = cast(DTensor, self.weights[name])
        whole = super().scatter(name, whole)
        # Every rank has read the checkpoint, so nothing needs to be sent.
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def _clip(self) -> Tensor:
        return cast(DTensor, super()._clip()).full_tensor()
