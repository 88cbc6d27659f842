"""DeepSpeed's ZeRO: every rank holds a part of the optimiser state, gradients and weights.

Only checkpoints of whole tensors leave this file: DeepSpeed's own can be read only by as many
ranks as wrote them, its universal ones only after a conversion on disk and by DeepSpeed alone. The
private names that this takes are why its version is bounded; parity tests come before a new bound.
"""

from typing import Any, cast

import deepspeed
import torch
import torch.distributed
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from bnce_dist.training.optimizer import set_learning_rate
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.strategy import OptimizerState, SingleDevice

# DeepSpeed would compile an all-reduce in shared memory for minutes and, once interrupted in it,
# wait for ever for the lock that is left behind; gloo does the same.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.utils.logger.setLevel("WARNING")

_MOMENTS = ("exp_avg", "exp_avg_sq")


class PartitionedOptimizer(SingleDevice):
    """ZeRO 1 and 2: weights are whole on every rank.

    Args:
        objective: On this rank's device, with the same weights on every rank.
        settings: How it is trained.
        zero_stage: 1 spreads the optimiser state, 2 the gradients too.
    """

    # DeepSpeed gives the optimiser flat weights and states of its own, here with counts of steps
    # on the CPU.
    may_fuse = False

    def __init__(self, objective: nn.Module, settings: TrainSettings, zero_stage: int) -> None:
        super().__init__(objective, settings)
        (optimizer,) = self.optimizers
        self._engine, self._zero, *_ = deepspeed.initialize(
            model=objective, optimizer=optimizer, config=self._config(zero_stage)
        )
        self.model = self._engine

    def accumulate(
        self, batch: dict[str, Tensor], *, fraction: float, is_last: bool
    ) -> dict[str, Tensor]:
        """Add the gradient of a part."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        return super().accumulate(batch, fraction=fraction, is_last=is_last)

    def step(self, learning_rate: float) -> None:
        """Clip the gradient, let the optimiser move the weights and note the norm.

        DeepSpeed does all of it in one call, in which it may wait, and moves the weights whatever
        the norm is. Those of a bad step are never saved.
        """
        set_learning_rate(self.optimizers, learning_rate)
        self._engine.step()
        # A number or, on the device, a tensor.
        self.gradients.note(torch.as_tensor(self._engine.get_global_grad_norm()).reshape(()))

    def optimizer_state(self) -> OptimizerState:
        """Return the whole state of the optimiser."""
        (step, *_) = (state["step"] for state in self._zero.optimizer.state.values())
        return {
            name: {"step": step, **{key: self._moment(name, key) for key in _MOMENTS}}
            for name in self.weights
        }

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Take up what ``optimizer_state`` returned, of any strategy."""
        step = next(iter(state.values()))["step"]
        for partition in self._partitions():
            moments = {key: torch.zeros_like(partition) for key in _MOMENTS}
            self._zero.optimizer.state[partition] = {"step": step.clone(), **moments}
        self._link_moments()
        for name in self.weights:
            for key in _MOMENTS:
                self._set_moment(name, key, state[name][key])

    def _partitions(self) -> list[Tensor]:
        """Return the flat tensors that DeepSpeed's optimiser moves."""
        return self._zero.single_partition_of_fp32_groups

    def _link_moments(self) -> None:
        # What DeepSpeed does after its first step, when the moments would have come to be.
        self._zero._lazy_init_hp_params_optimizer_state()

    def _moment(self, name: str, key: str) -> Tensor:
        return safe_get_full_optimizer_state(self.weights[name], key)

    def _set_moment(self, name: str, key: str, whole: Tensor) -> None:
        safe_set_full_optimizer_state(self.weights[name], self.scatter(name, whole), key)

    def _backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def _config(self, zero_stage: int) -> dict[str, Any]:
        num_weights = sum(weight.numel() for weight in self.weights.values())
        return {
            "zero_optimization": {
                "stage": zero_stage,
                # DeepSpeed allocates a whole bucket, by default of 2 GB, however small the model.
                "reduce_bucket_size": min(num_weights, 500_000_000),
            },
            "gradient_clipping": self.settings.gradient_clip or 0.0,
            "torch_autocast": {
                "enabled": self.settings.precision == "bf16",
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],  # gradients travel in fp32
            },
            # Only DeepSpeed's own reports depend on it.
            "train_micro_batch_size_per_gpu": 1,
            "steps_per_print": None,
        }


class PartitionedWeights(PartitionedOptimizer):
    """ZeRO 3: every rank holds a part of the weights, too.

    Args:
        objective: On this rank's device, with the same weights on every rank.
        settings: How it is trained.
    """

    def __init__(self, objective: nn.Module, settings: TrainSettings) -> None:
        super().__init__(objective, settings, zero_stage=3)

    def shards(self) -> dict[str, Tensor]:
        """Return this rank's part of every weight, flat and padded to equal size."""
        return {
            name: safe_get_local_fp32_param(weight).detach()
            for name, weight in self.weights.items()
        }

    def gather(self, name: str, shard: Tensor) -> Tensor:
        """Return the whole tensor."""
        shape = cast(Any, self.weights[name]).ds_shape
        whole = shard.new_empty(shard.numel() * torch.distributed.get_world_size())
        torch.distributed.all_gather_into_tensor(whole, shard.contiguous())
        return whole[: shape.numel()].view(shape)

    def scatter(self, name: str, whole: Tensor) -> Tensor:
        """Return a copy of this rank's part."""
        size = cast(Any, self.weights[name]).ds_tensor.numel()
        world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        flat = nn.functional.pad(whole.flatten(), (0, size * world_size - whole.numel()))
        return flat[rank * size : (rank + 1) * size].to(self.weights[name].device, copy=True)

    def _partitions(self) -> list[Tensor]:
        return self._zero.fp32_partitioned_groups_flat

    def _link_moments(self) -> None:
        pass

    def _moment(self, name: str, key: str) -> Tensor:
        return self.gather(name, safe_get_local_optimizer_state(self.weights[name], key))

    def _set_moment(self, name: str, key: str, whole: Tensor) -> None:
        safe_set_local_optimizer_state(self.weights[name], self.scatter(name, whole), key)
