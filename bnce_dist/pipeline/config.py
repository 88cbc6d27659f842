"""Everything a run can be told, with units; the defaults are alanine dipeptide."""

from typing import Annotated, Literal

from pydantic import Field

from bnce_dist.chem.simulation.settings import DatasetConfig, ReferenceConfig, SpreadConfig
from bnce_dist.config.section import Count, Place, Section
from bnce_dist.generator.architectures import EmulatorConfig, EnergyConfig
from bnce_dist.generator.metrics import EvaluateConfig
from bnce_dist.generator.shared_architectures import (
    FineTuningConfig,
    SharedEnergyConfig,
    TokenFieldConfig,
    TransferableConfig,
)
from bnce_dist.generator.target import TargetConfig
from bnce_dist.pipeline.cluster import ClusterConfig


class GenerateConfig(Section):
    """The emulator's samples that the energy model learns from."""

    num_samples: Count = 120_000
    """Samples for the energy model."""
    shard_size: Count = 5_000
    """Samples per shard."""


class MolecularClusterConfig(ClusterConfig):
    """How the work is spread; results do not depend on it beyond rounding."""

    executor: Literal["ray", "local"] = "ray"
    """Where the work runs: on Ray, or all of it in the calling process."""
    activation_checkpointing: bool = False
    """Compute the inside of a Cartesian model's layers again in the backward pass instead of
    keeping it: several times less memory, a third more time."""
    compile_force_field: bool = True
    """Compile the force field for simulations: half a minute once, then several times faster."""


class TrackingConfig(Section):
    """Where the run is recorded."""

    backend: Literal["mlflow", "jsonl", "none"] = "mlflow"
    """Where records go: an MLflow store, a file in the run's folder, or nowhere."""
    experiment: str = "bnce_dist"
    """Name of the experiment."""
    store: str | None = None
    """Address of the MLflow store; null is MLFLOW_TRACKING_URI, else mlflow.db beside the run."""


class Config(Section):
    """One run of the pipeline."""

    left_out_unset = frozenset({"refines"})

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    refines: Place | None = None
    """Finished run of the same molecule that this one goes on from (`bnce train --refine`): chains
    start in its annealed samples, its models learn on, its reference is taken over. With
    `--molecules`, a fleet."""
    target: TargetConfig = TargetConfig()
    reference: ReferenceConfig = ReferenceConfig()
    dataset: DatasetConfig = DatasetConfig()
    spread: SpreadConfig = SpreadConfig()
    emulator: EmulatorConfig = EmulatorConfig()
    transferable: TransferableConfig = TransferableConfig()
    token_field: TokenFieldConfig = TokenFieldConfig()
    shared_energy: SharedEnergyConfig = SharedEnergyConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    generate: GenerateConfig = GenerateConfig()
    energy: EnergyConfig = EnergyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: MolecularClusterConfig = MolecularClusterConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def other_temperatures_kelvin(self) -> tuple[float, ...]:
        """Temperatures that samples are annealed to beside the run's own [K]."""
        own = self.target.temperature_kelvin
        return tuple(asked for asked in self.evaluate.temperatures_kelvin if asked != own)
