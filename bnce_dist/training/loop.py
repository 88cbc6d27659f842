"""The training loop: the same program on one process and on many ranks.

Every draw of step ``s`` is keyed by ``(seed, s)`` and the rows of the *global* batch that it is for
(see ``draws``); the batch is cut into parts, one or more per rank. N ranks therefore see what one
rank would see, a resumed run sees what an uninterrupted one would, and no random state needs
saving. Parts of different sizes count by their size, so that N need not divide the batch.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.training.divergence import require_finite
from bnce_dist.training.draws import draw_batch
from bnce_dist.training.optimizer import learning_rate
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice
from bnce_dist.training.task import Record


def train(
    objective: Any,
    data: np.ndarray,
    settings: TrainSettings,
    *,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
    parallelise: Callable[..., SingleDevice] = SingleDevice,
    resume: dict[str, Any] | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[Record], None] = lambda record: None,
    save: Callable[[dict[str, Any]], None] = lambda content: None,
) -> TrainState:
    """Train the objective's model and return the final state.

    Args:
        objective: Module with ``draw(x_data, generator, common)``, ``shared`` and a ``forward``
            that returns the loss and its parts; gradients inside the loss are taken in
            ``forward``. It is on its device.
        data: Model-space vectors, ``(samples, dim)`` float32.
        settings: How to train.
        rank: This process's place among ``world_size``; with more than one, the default
            process group is initialised and ``parallelise`` averages gradients over it.
        world_size: Number of processes.
        accumulation_steps: Parts in which a rank goes through its samples of a step.
        parallelise: Called with ``objective`` and ``settings``; says how they are trained.
        resume: Content of a checkpoint to go on from.
        validate: See ``TrainingTask``; called on rank 0 where a checkpoint is due.
        report: Called on every rank with each record of the loss history, after the checkpoint
            that holds it, if one was due.
        save: Called on every rank with the state, on the CPU, where a checkpoint is due.

    Raises:
        InputError: there are more parts than samples in a batch, or ``validate`` returns a name
            that the record has already.
        TrainingDiverged: the loss or its gradient is not finite, which is looked at where a record
            or a checkpoint is due; nothing was saved from that step on.
    """
    batch_size = min(settings.global_batch_size, len(data))
    require_samples_for_all(batch_size, world_size * accumulation_steps)
    part = slice(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
    # Ranks are averaged with equal weights.
    share = (part.stop - part.start) * world_size / batch_size
    if resume is not None:
        objective.load_state_dict(resume["model"])
    validation = Validation(validate, objective) if validate is not None else None
    state = TrainState(parallelise(objective=objective, settings=settings), resume)
    meter = LossMeter(batch_size, world_size)
    while state.step < settings.num_steps:
        batch = draw_batch(objective, data, settings, state.step, part)
        parts = split_batch(batch, objective.shared, accumulation_steps)
        meter.add(take_step(state, parts, settings, share))
        checkpoint_due = _is_due(state.step, settings.checkpoint_interval, settings)
        if checkpoint_due or _is_due(state.step, settings.report_interval, settings):
            # The only place where the host waits for the device; before anything is saved.
            state.strategy.gradients.require_finite(state.step, settings)
            record = meter.record(state.step, learning_rate(state.step - 1, settings))
            require_finite(record["loss"], state.step, settings)
            if checkpoint_due and validation is not None:
                record = _joined(record, validation.of(state, rank))
            state.history.append(record)
            if checkpoint_due:
                save(state.state_dict())
            report(record)
    return state


def per_rank_batch_size(
    settings: TrainSettings,
    world_size: int,
    *,
    num_samples: int | None = None,
    accumulation_steps: int = 1,
) -> int:
    """Return how many samples of the global batch each rank gets.

    Args:
        settings: With ``global_batch_size``.
        world_size: Number of ranks.
        num_samples: Size of the data set, which bounds the batch, if it is known already.
        accumulation_steps: Equal parts in which a rank goes through its samples.

    Raises: InputError: the global batch does not divide.
    """
    batch_size = min(settings.global_batch_size, num_samples or settings.global_batch_size)
    if batch_size % (world_size * accumulation_steps):
        parts = f" times accumulation_steps ({accumulation_steps})"
        raise InputError(
            "training setting global_batch_size",
            expected=f"a multiple of the number of workers ({world_size})"
            + (parts if accumulation_steps > 1 else ""),
            got=batch_size,
            remedy="change global_batch_size or the number of workers",
        )
    return batch_size // world_size


def require_samples_for_all(batch_size: int, num_parts: int) -> None:
    """Refuse a batch that is cut into so many parts that one is empty.

    Raises: InputError: it is.
    """
    if batch_size < num_parts:
        raise InputError(
            "training setting global_batch_size",
            expected=f"at least {num_parts}, one sample for each part of each worker's batch",
            got=batch_size,
            remedy="change global_batch_size or the number of workers",
        )


def split_batch(
    batch: dict[str, Tensor], shared: frozenset[str], num_parts: int
) -> list[tuple[float, dict[str, Tensor]]]:
    """Cut a batch into parts, each with its fraction of the samples and all of what is shared."""
    size = next(len(value) for name, value in batch.items() if name not in shared)
    chunks = {
        name: [value] * num_parts if name in shared else value.tensor_split(num_parts)
        for name, value in batch.items()
    }
    parts = [{name: chunk[i] for name, chunk in chunks.items()} for i in range(num_parts)]
    samples = torch.arange(size).tensor_split(num_parts)
    return [(len(own) / size, part) for own, part in zip(samples, parts, strict=True)]


def take_step(
    state: TrainState,
    parts: list[tuple[float, dict[str, Tensor]]],
    settings: TrainSettings,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Do one optimiser step and return the detached loss and its parts; nothing is waited for.

    Args:
        state: Of the training.
        parts: The rank's samples, as ``split_batch`` returns them.
        settings: How to train.
        share: The rank's weight in the mean over ranks; 1 on average.
    """
    losses: dict[str, Tensor] = {}
    for number, (fraction, part) in enumerate(parts, start=1):
        weight = fraction * share
        is_last = number == len(parts)
        means = state.strategy.accumulate(part, fraction=weight, is_last=is_last)
        losses = {name: losses.get(name, 0) + weight * mean for name, mean in means.items()}
    state.strategy.step(learning_rate(state.step, settings))
    state.update_average()
    state.step += 1
    return losses


class Validation:
    """Judges the averaged weights, in an objective of its own that no strategy has cut up.

    Args:
        validate: See ``TrainingTask``.
        objective: Not yet parallel.
    """

    def __init__(
        self, validate: Callable[[nn.Module], dict[str, float]], objective: nn.Module
    ) -> None:
        self._validate, self._objective = validate, copy.deepcopy(objective)

    def of(self, state: TrainState, rank: int) -> dict[str, float]:
        """Return the numbers on the first rank, nothing on others; all ranks call it."""
        weights = state.averaged_state_dict()
        if rank > 0:
            return {}
        self._objective.load_state_dict(weights)
        return self._validate(self._objective)


class LossMeter:
    """Averages the losses over steps and ranks, and measures their time and computing time.

    Args:
        global_batch_size: Samples per step over all ranks.
        world_size: Number of ranks that call ``record`` together.
    """

    def __init__(self, global_batch_size: int, world_size: int) -> None:
        self._global_batch_size, self._world_size = global_batch_size, world_size
        self._reset()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take in the losses of one step."""
        self._losses.append(losses)

    def record(self, step: int, learning_rate: float) -> Record:
        """Return the means since the last record and start again."""
        steps = self._losses
        names = list(steps[0])
        means = torch.stack([torch.stack([losses[n] for losses in steps]).mean() for n in names])
        cpu_seconds = means.new_tensor([time.process_time() - self._cpu_started])
        if self._world_size > 1:
            torch.distributed.all_reduce(means)
            means /= self._world_size
            torch.distributed.all_reduce(cpu_seconds)
        values = means.tolist()  # Waits for the steps, whose time is taken only then.
        rate = len(steps) * self._global_batch_size / (time.perf_counter() - self._started)
        self._reset()
        return {
            "step": step,
            **dict(zip(names, values, strict=True)),
            "learning_rate": learning_rate,
            "samples_per_second": rate,
            "cpu_seconds": cpu_seconds.item(),
        }

    def _reset(self) -> None:
        self._losses: list[dict[str, Tensor]] = []
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()


def _joined(record: Record, validation: dict[str, float]) -> Record:
    for name in validation.keys() & record.keys():
        raise InputError(
            "validation during training",
            expected=f"names other than {', '.join(record)}",
            got=name,
            remedy="rename it in what validate returns",
        )
    return record | validation


def _is_due(step: int, interval: int, settings: TrainSettings) -> bool:
    return step % interval == 0 or step == settings.num_steps
