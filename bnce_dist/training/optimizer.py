"""Optimisers and the learning rate over the steps."""

import math

import torch
from torch import nn

from bnce_dist.training.settings import TrainSettings


def build_optimizers(module: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together cover every trainable parameter once.

    Muon orthogonalises the update of a matrix, so biases, embeddings of one dimension and
    matrices of a single row or column stay with AdamW. Its update is scaled to AdamW's size,
    so that one learning rate serves both.

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
        optimizers.append(torch.optim.AdamW(others, rate, weight_decay=decay))
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
    """Let every parameter group use ``value``."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value
