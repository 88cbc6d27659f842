"""How the ranks of a training share one model, as settings."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bnce_dist.core.errors import InputError
from bnce_dist.training.settings import TrainSettings

StrategyName = Literal["single", "ddp", "deepspeed", "sharded"]


def _require(
    holds: bool, what: str, expected: str, got: object, remedy: str = "correct the configuration"
) -> None:
    if not holds:
        raise InputError(what, expected=expected, got=got, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How the ranks of a training share one model; what is learned does not depend on it.

    Args:
        strategy: ``single``: nothing is shared. ``ddp``: every rank holds everything.
            ``deepspeed``: every rank holds a part of what ``zero_stage`` says. ``sharded``: every
            rank holds a part of every weight, its gradient and its optimiser state.
        zero_stage: 1 for the optimiser state, 2 for the gradients too, 3 for the weights too.
        accumulation_steps: Equal parts in which a rank goes through its samples of a step.

    Raises: InputError: a value is out of range, or DeepSpeed is not installed.
    """

    strategy: StrategyName = "ddp"
    zero_stage: int = 1
    accumulation_steps: int = 1

    def __post_init__(self) -> None:
        names = get_args(StrategyName)
        _require(self.strategy in names, "strategy", f"one of {', '.join(names)}", self.strategy)
        _require(self.zero_stage in (1, 2, 3), "zero_stage", "1, 2 or 3", self.zero_stage)
        _require(
            self.accumulation_steps >= 1,
            "accumulation_steps",
            "at least 1",
            self.accumulation_steps,
        )
        _require(
            self.strategy != "deepspeed" or importlib.util.find_spec("deepspeed") is not None,
            "strategy deepspeed",
            "an installed DeepSpeed",
            "none",
            remedy="run `make setup-deepspeed`, or choose the strategy ddp or sharded",
        )

    def require_one_model(self, num_workers: int) -> None:
        """Refuse workers that would each train a model of their own.

        Raises: InputError: several workers that share nothing.
        """
        _require(
            self.strategy != "single" or num_workers == 1,
            "number of workers with the strategy single",
            "1",
            num_workers,
            remedy="choose the strategy ddp",
        )

    def require_supported(
        self, build_objective: Callable[[], Any], settings: TrainSettings
    ) -> None:
        """Refuse what the strategy cannot train.

        Args:
            build_objective: Called only where the answer depends on the objective.
            settings: How it is trained.

        Raises: InputError: Muon, which needs whole matrices, where they are cut; or a gradient
            inside the loss under ZeRO-3.
        """
        _require(
            settings.optimizer != "muon" or self.strategy in ("single", "ddp"),
            f"training setting optimizer with the strategy {self.strategy}",
            "adamw: muon needs whole matrices",
            settings.optimizer,
            remedy="choose the optimizer adamw or the strategy ddp",
        )
        if (self.strategy, self.zero_stage) == ("deepspeed", 3):
            objective = build_objective()
            _require(
                not objective.double_backward,
                f"zero_stage for {type(objective).__name__}",
                "1 or 2: ZeRO-3 cannot differentiate a loss that holds a gradient",
                self.zero_stage,
                remedy="choose the strategy sharded, which also spreads the weights",
            )


DATA_PARALLEL = Parallelism()
