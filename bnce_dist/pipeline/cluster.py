"""How a run's work is spread over machines, as settings."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bnce_dist.config.section import Count, Section
from bnce_dist.core.errors import InputError
from bnce_dist.core.optional import why_not_importable
from bnce_dist.training.settings import TrainSettings


class Parallelism(Section):
    """How the ranks of a training share one model; what is learned does not depend on it."""

    strategy: Literal["ddp", "deepspeed", "sharded"] = "ddp"
    """How the workers of a training share the model: all hold it, or each a part of it."""
    zero_stage: Literal[1, 2, 3] = 1
    """What deepspeed spreads: the optimiser state, also the gradients, also the weights."""
    accumulation_steps: Count = 1
    """Equal parts in which a worker goes through its samples of a step, to save memory."""

    def require_supported(
        self, build_objective: Callable[[], Any], settings: TrainSettings
    ) -> None:
        """Refuse what the strategy cannot train.

        Args:
            build_objective: Called only where the answer depends on the objective.
            settings: How it is trained.

        Raises: InputError: DeepSpeed is not installed; Muon, which needs whole matrices, where
            they are cut; or a gradient inside the loss under ZeRO-3.
        """
        fault = why_not_importable("deepspeed") if self.strategy == "deepspeed" else None
        if fault is not None:
            raise InputError(
                "strategy deepspeed",
                expected="an installed DeepSpeed that works",
                got=fault,
                remedy="run `make setup-deepspeed`, or choose the strategy ddp or sharded",
            )
        if self.strategy != "ddp" and settings.optimizer == "muon":
            raise InputError(
                f"training setting optimizer with the strategy {self.strategy}",
                expected="adamw: muon needs whole matrices",
                got=settings.optimizer,
                remedy="choose the optimizer adamw or the strategy ddp",
            )
        if (self.strategy, self.zero_stage) == ("deepspeed", 3):
            objective = build_objective()
            if objective.double_backward:
                raise InputError(
                    f"zero_stage for {type(objective).__name__}",
                    expected="1 or 2: ZeRO-3 cannot differentiate a loss that holds a gradient",
                    got=self.zero_stage,
                    remedy="choose the strategy sharded, which also spreads the weights",
                )


DATA_PARALLEL = Parallelism()


class WorkerResources(Section):
    """What a worker takes of its node, and which nodes will do."""

    cpus_per_worker: Count = 1
    """Cores, and threads, of a worker."""
    workers_per_gpu: Count = 1
    """Actors on one GPU that simulate, sample and evaluate; a rank of a training has its own."""
    accelerator_type: str | None = None
    """The GPUs to use, by Ray's name of them (`H100`); null is any."""
    node_labels: dict[str, str] = Field(default_factory=dict)
    """The nodes to use, by labels as Ray selects them: `{zone: eu}`, `{market-type: "!spot"}`."""


ONE_CORE = WorkerResources()


class ClusterConfig(Parallelism, WorkerResources):
    """How the work is spread; results do not depend on it beyond rounding."""

    executor: Literal["ray", "local"] | None = None
    """Where the work runs: on Ray, or all of it in the calling process; null is the process for
    a single run of a planar system and for a sweep's trial of one, else Ray."""
    num_workers: Count | None = None
    """Parallel workers; null is as many as the nodes have room for: one per GPU if there are any,
    else per core; of them a training takes as many as divide its batch."""
    min_workers: Count | None = None
    """Let a training go on with as few when nodes are lost, and grow back; null is never. It needs
    num_workers."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often a training whose worker died is started again from its last checkpoint."""
    require_gpus: bool = False
    """Refuse a cluster without GPUs; otherwise cores do the work where there are none."""

    @model_validator(mode="after")
    def _check_strategy(self) -> "ClusterConfig":
        self.require(
            self.executor == "ray" or self.strategy == "ddp",
            "executor ray for a strategy of many workers",
            "executor",
            "strategy",
        )
        self.require(
            self.min_workers is None or self.min_workers <= (self.num_workers or 0),
            "min_workers of at most num_workers, which must be given",
            "min_workers",
            "num_workers",
        )
        return self
