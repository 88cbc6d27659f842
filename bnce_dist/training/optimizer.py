"""Optimisers and the learning rate over the steps."""

import math

import torch
from torch import Tensor, nn

from bnce_dist.training.settings import TrainSettings

# On a CPU the fused AdamW rounds differently from the loop over the weights, so it is not used.
FUSED_ON = {"cuda"}


def build_optimizers(
    module: nn.Module, settings: TrainSettings, *, may_fuse: bool = True
) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together cover every trainable parameter once.

    Muon orthogonalises the update of a matrix, so biases, embeddings of one dimension and
    matrices of a single row or column stay with AdamW. Its update is scaled to AdamW's size,
    so that one learning rate serves both. AdamW is one kernel for all weights where the device
    has it.

    Args:
        module: Holds the parameters, which are on their device.
        settings: How it is trained.
        may_fuse: Whether AdamW may be that kernel.

    Source: Jordan et al. (2024), "Muon"; scale: Liu et al. (2025), arXiv:2502.16982.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    use_muon = settings.optimizer == "muon"
    matrices = [p for p in parameters if use_muon and p.ndim == 2 and min(p.shape) > 1]
    in_muon = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in in_muon]
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, rate, decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        can_fuse = may_fuse and others[0].device.type in FUSED_ON
        fused = True if can_fuse else None  # None is what torch takes by default
        optimizers.append(torch.optim.AdamW(others, rate, weight_decay=decay, fused=fused))
    return optimizers


def learning_rate(step: int, settings: TrainSettings) -> float:
    r"""Return the learning rate of a step: linear warm-up, then a cosine to zero or a constant.

    .. math:: \eta_s = \eta \min\left(1, \frac{s + 1}{w}\right) \cdot
        \tfrac{1}{2} \left(1 + \cos \pi \frac{\max(s - w, 0)}{S - w}\right)

    The constant schedule has no second factor. The rate is a function of the step alone, so
    resuming needs no scheduler state.

    Args:
        step: :math:`s`, counted from 0.
        settings: With ``learning_rate`` :math:`\eta`, ``warmup_steps`` :math:`w`,
            ``num_steps`` :math:`S` and ``schedule``.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / (settings.num_steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizers: list[torch.optim.Optimizer], value: float) -> None:
    """Let every parameter group use ``value``.

    A number of the host travels with the kernel that uses it, so nothing waits.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value


def step_unless(stopped: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser move its weights and its state, unless ``stopped`` is 1.

    The fused one looks at it on the device, the others are not called where looking is free, on
    a CPU. Muon on a GPU goes on, with numbers that nobody will see.

    Args:
        stopped: See ``GradientWatch``.
        optimizer: One of ``build_optimizers``.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = stopped  # type: ignore[attr-defined]  # as torch.amp.GradScaler does
    elif stopped.device.type == "cpu" and stopped:
        return
    optimizer.step()
