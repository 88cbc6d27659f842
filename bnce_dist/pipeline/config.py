"""Everything a run can be told, with units; the defaults are alanine dipeptide."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Angle = Annotated[float, Field(ge=-3.1416, le=3.1416)]
# YAML writes sequences as lists; everything else keeps the strict types of `Section`.
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Section(BaseModel):
    """A frozen group of settings: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def _require(self, condition: bool, expected: str, *names: str) -> None:
        """Raise if settings that are fine one by one contradict each other."""
        if not condition:
            got = ", ".join(f"{name} = {getattr(self, name)}" for name in names)
            context = {"expected": expected, "got": got}
            raise PydanticCustomError("contradiction", "{expected}", context)


class TargetConfig(Section):
    """The Boltzmann distribution to sample, and the state whose free energy is asked for."""

    sequence: str | None = "ACE-ALA-NME"
    """Residues: three-letter names joined by dashes, or one-letter codes."""
    pdb: str | None = None
    """Path of a PDB file, instead of a sequence."""
    force_field: Names = ("amber14-all.xml", "implicit/obc1.xml")
    """OpenMM force-field files."""
    temperature_kelvin: Positive = 300.0
    """Bath temperature [K]."""
    state_phi_min: Angle = 0.0
    """Lower edge of the state in phi [rad]."""
    state_phi_max: Angle = 2.0
    """Upper edge of the state in phi [rad]."""

    @model_validator(mode="before")
    @classmethod
    def _pdb_replaces_default(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("pdb") is not None:
            return {"sequence": None, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> "TargetConfig":
        one_source = (self.sequence is None) != (self.pdb is None)
        self._require(one_source, "one of sequence and pdb, the other null", "sequence", "pdb")
        self._require(
            self.state_phi_min < self.state_phi_max,
            "state_phi_min below state_phi_max",
            "state_phi_min",
            "state_phi_max",
        )
        return self


class ReferenceConfig(Section):
    """The short umbrella sampling that every run makes for itself."""

    num_replicas: Annotated[int, Field(ge=2)] = 4
    """Independent runs of the window grid, one task each."""
    num_phi: Count = 12
    """Windows along phi (even)."""
    num_psi: Count = 12
    """Windows along psi (even)."""
    stiffness_kj_mol: Positive = 20.0
    """K in k (1 - cos(angle)) [kJ/mol]."""
    num_copies: Count = 1
    """Copies of the grid in one replica."""
    burn_in_ps: NonNegative = 5.0
    """Hot dynamics before it, per chain [ps]."""
    equilibration_ps: NonNegative = 10.0
    """Discarded dynamics, per chain [ps]."""
    production_ps: Positive = 40.0
    """Recorded dynamics, per chain [ps]."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""


class DatasetConfig(Section):
    """Unbiased chains from biased starts: the data the emulator learns from."""

    num_chains: Count = 128
    """Chains, in all tasks together."""
    num_tasks: Count = 4
    """Tasks the chains are dealt to."""
    frames_per_chain: Count = 500
    """Frames kept of each chain."""
    frame_interval_ps: Positive = 0.2
    """Time between kept frames [ps]."""
    equilibration_ps: NonNegative = 5.0
    """Discarded dynamics, per chain [ps]."""
    state_fraction: Fraction = 0.24
    """Share of chains that start in the state."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""


class TrainingConfig(Section):
    """How one model is optimised."""

    num_steps: Count = 6000
    """Optimiser steps."""
    global_batch_size: Count = 512
    """Samples per step over all workers."""
    learning_rate: Positive = 1e-3
    """Peak of the cosine schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    gradient_clip: Positive | None = 1.0
    """Largest gradient norm; null: no clip."""
    ema_decay: Fraction = 0.999
    """Decay of the averaged weights per step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Adamw or muon."""
    checkpoint_interval: Count = 500
    """Steps between checkpoints."""
    report_interval: Count = 50
    """Steps one record of the history averages."""


class EmulatorConfig(TrainingConfig):
    """The flow that draws samples, in whitened internal coordinates."""

    width: Count = 256
    """Hidden units per layer."""
    depth: Count = 4
    """Hidden layers."""
    time_exponent: Positive = 1.0
    """T = u^exponent with u uniform."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Fp32 or bf16 autocast."""


class GenerateConfig(Section):
    """The emulator's samples that the energy model learns from."""

    num_samples: Count = 200_000
    """Samples for the energy model."""
    num_ode_steps: Count = 20
    """Midpoint steps of the sampler."""
    shard_size: Count = 5_000
    """Samples per shard."""


class EnergyConfig(TrainingConfig):
    """The energy model that gives the emulator's density in one forward pass."""

    learning_rate: Positive = 2e-3
    """Peak of the cosine schedule."""
    width: Count = 256
    """Hidden units per layer."""
    depth: Count = 4
    """Hidden layers."""
    score_weight: NonNegative = 1.0
    """Weight of the score-matching loss."""
    infonce_weight: NonNegative = 2.0
    """Weight of the InfoNCE loss."""
    num_negatives: Count = 128
    """Stratified times per positive."""
    time_exponent: Positive = 2.5
    """T = u^exponent with u uniform."""
    precision: Literal["fp32"] = "fp32"
    """Fp32: log densities need it."""

    @model_validator(mode="after")
    def _check(self) -> "EnergyConfig":
        self._require(
            self.score_weight + self.infonce_weight > 0,
            "one of the two weights above zero",
            "score_weight",
            "infonce_weight",
        )
        return self


class EvaluateConfig(Section):
    """Held-out samples, their weights, and the exact likelihood to judge by."""

    num_samples: Annotated[int, Field(ge=100)] = 10_000
    """Held-out samples that are reweighted."""
    num_exact: Annotated[int, Field(ge=10)] = 1_000
    """Of them, those with an exact likelihood."""
    num_exact_steps: Count = 20
    """Midpoint steps of the exact likelihood."""
    shard_size: Count = 500
    """Samples per shard."""
    clip_fraction: Fraction = 0.002
    """Largest weights that are clipped."""
    num_bootstrap: Annotated[int, Field(ge=20)] = 500
    """Bootstrap resamples."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        self._require(
            self.num_exact <= self.num_samples,
            "num_exact at most num_samples",
            "num_exact",
            "num_samples",
        )
        return self


class ClusterConfig(Section):
    """How the work is spread; results do not depend on it."""

    num_workers: Count | None = None
    """Parallel workers; null: one per core."""
    threads_per_worker: Count = 1
    """Threads of each worker."""


class TrackingConfig(Section):
    """Where the run is recorded."""

    backend: Literal["mlflow", "jsonl", "none"] = "mlflow"
    """Where records go."""
    experiment: str = "bnce_dist"
    """Name of the experiment."""


class Config(Section):
    """One run of the pipeline."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of every random draw."""
    target: TargetConfig = TargetConfig()
    reference: ReferenceConfig = ReferenceConfig()
    dataset: DatasetConfig = DatasetConfig()
    emulator: EmulatorConfig = EmulatorConfig()
    generate: GenerateConfig = GenerateConfig()
    energy: EnergyConfig = EnergyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
