"""Everything a run can be told, with units; the defaults are alanine dipeptide."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Interpolant = Literal["trigonometric", "linear"]
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
    def _check_consistent(self) -> "TargetConfig":
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

    num_tasks: Count = 2
    """Independent simulations, one task each; each is a replica of the error estimate."""
    num_phi: Annotated[int, Field(ge=4, multiple_of=2)] = 16
    """Windows along phi."""
    num_psi: Annotated[int, Field(ge=4, multiple_of=2)] = 16
    """Windows along psi."""
    phi_stiffness_kj_mol: Positive = 30.0
    """Strength k of the bias k (1 - cos(phi - centre)) [kJ/mol]."""
    psi_stiffness_kj_mol: Positive = 30.0
    """Strength k of the bias k (1 - cos(psi - centre)) [kJ/mol]."""
    burn_in_ps: NonNegative = 2.0
    """Hot dynamics before everything else, per chain [ps]."""
    flattening_stages: Annotated[int, Field(ge=0)] = 4
    """Times the landscape is measured and levelled before anything is recorded."""
    flattening_ps: Positive = 3.0
    """Dynamics before each levelling, per chain [ps]."""
    equilibration_ps: NonNegative = 5.0
    """Discarded dynamics, per chain [ps]."""
    production_ps: Positive = 25.0
    """Recorded dynamics, per chain [ps]."""
    positions_interval_ps: Positive = 1.0
    """Time between recorded positions [ps]."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""
    num_blocks: Annotated[int, Field(ge=2)] = 5
    """Blocks in time whose spread gives the standard error."""
    max_stderr_kt: Positive = 0.10
    """Largest standard error that counts as converged [kT]."""


class DatasetConfig(Section):
    """Unbiased chains from biased starts: the data the emulator learns from."""

    num_chains: Count = 512
    """Chains, in all tasks together."""
    num_tasks: Count = 2
    """Tasks the chains are dealt to."""
    frames_per_chain: Count = 200
    """Frames kept of each chain."""
    frame_interval_ps: Positive = 0.2
    """Time between kept frames [ps]."""
    equilibration_ps: NonNegative = 1.0
    """Discarded dynamics, per chain [ps]."""
    state_fraction: Fraction = 0.25
    """Share of chains that start in the state."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""

    @model_validator(mode="after")
    def _check_chains(self) -> "DatasetConfig":
        self._require(
            self.num_chains % self.num_tasks == 0,
            "num_chains a multiple of num_tasks",
            "num_chains",
            "num_tasks",
        )
        return self


class TrainingConfig(Section):
    """How one model is optimised."""

    num_steps: Count = 6000
    """Optimiser steps."""
    global_batch_size: Count = 512
    """Samples per step over all workers; at least the size of the data is the full batch."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; the cosine ends at zero."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights per step; 0 keeps the last weights."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon applies to weight matrices, AdamW to the rest."""
    checkpoint_interval: Count = 500
    """Steps between checkpoints."""
    report_interval: Count = 50
    """Steps one record of the history averages."""

    @model_validator(mode="after")
    def _check_warmup(self) -> "TrainingConfig":
        self._require(
            self.warmup_steps < self.num_steps,
            "warmup_steps below num_steps",
            "warmup_steps",
            "num_steps",
        )
        return self


class EmulatorConfig(TrainingConfig):
    """The flow that draws samples, in whitened internal coordinates."""

    num_steps: Count = 6000
    """Optimiser steps."""
    learning_rate: Positive = 2e-3
    """Peak of the schedule."""
    width: Count = 256
    """Hidden features."""
    depth: Count = 4
    """Residual blocks."""
    interpolant: Interpolant = "trigonometric"
    """Path of the Euclidean coordinates; both end in a standard normal."""
    time_exponent: Positive = 1.0
    """Training times are u^exponent with u uniform."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 is autocast."""
    num_ode_steps: Count = 20
    """Midpoint steps of the sampler."""
    ode_time_exponent: Positive = 1.0
    """Above 1 the sampler's steps shorten towards the data."""


class TransferableConfig(TrainingConfig):
    """One flow for many molecules (--transferable), in Cartesian coordinates, trained on others."""

    training_molecules: Names = (
        "AR", "RN", "ND", "DC", "CQ", "QE", "EG", "GH", "HI", "IL",
        "LK", "KM", "MF", "FV", "PT", "ST", "TW", "WY", "YS", "VA",
    )  # fmt: skip
    """Dipeptides that the field learns from; none of those it is asked about."""
    num_steps: Count = 100_000
    """Optimiser steps."""
    global_batch_size: Count = 256
    """Samples per step over all workers, of all molecules mixed."""
    num_layers: Count = 5
    """Rounds of messages between atoms."""
    num_scalars: Count = 64
    """Scalars of an atom."""
    num_vectors: Count = 16
    """Vectors of an atom."""
    interpolant: Interpolant = "linear"
    """Path of the coordinates; both end in a standard normal."""
    coupling: Literal["independent", "optimal_transport", "kabsch"] = "kabsch"
    """What noise goes with what data: any, the nearest of the batch, or rotated onto it."""
    time_exponent: Positive = 1.0
    """Training times are u^exponent with u uniform."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 is autocast."""
    num_ode_steps: Count = 25
    """Midpoint steps of the sampler."""
    ode_time_exponent: Positive = 1.0
    """Above 1 the sampler's steps shorten towards the data."""


class FineTuningConfig(TrainingConfig):
    """How the transferable field goes on learning from its reweighted samples of one molecule."""

    num_steps: Count = 2000
    """Optimiser steps."""
    global_batch_size: Count = 256
    """Samples per step over all workers."""
    learning_rate: Positive = 2e-4
    """Peak of the schedule."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 is autocast."""


class GenerateConfig(Section):
    """The emulator's samples that the energy model learns from."""

    num_samples: Count = 150_000
    """Samples for the energy model."""
    shard_size: Count = 5_000
    """Samples per shard."""


class EnergyConfig(TrainingConfig):
    """The energy model that gives the emulator's density in one forward pass."""

    num_steps: Count = 4000
    """Optimiser steps."""
    learning_rate: Positive = 2e-3
    """Peak of the schedule."""
    architecture: Literal["late_fusion", "concatenated", "distance", "graphormer"] = "late_fusion"
    """In internal coordinates, where time enters the network: in a last inner product, or as one
    more coordinate. In Cartesian ones, what sees the atoms: messages over distances with time in a
    last inner product, or the published attention, which sees time first."""
    width: Count = 256
    """Hidden features."""
    depth: Count = 4
    """Residual blocks or layers, or rounds of messages."""
    num_features: Count = 128
    """Features of a point that times are fused with, in late fusion."""
    num_fourier: Annotated[int, Field(ge=0)] = 0
    """Random Fourier features of the Euclidean coordinates."""
    fourier_scale: Positive = 1.0
    """Standard deviation of their frequencies: the inverse of the length to be resolved."""
    interpolant: Interpolant = "trigonometric"
    """Path of the Euclidean coordinates; both end in a standard normal."""
    score_weight: NonNegative = 60.0
    """Weight of the score-matching loss, a mean over coordinates."""
    infonce_weight: NonNegative = 2.0
    """Weight of the InfoNCE loss."""
    num_negatives: Count = 128
    """Other times each point is compared with."""
    negatives: Literal["stratified", "independent"] = "stratified"
    """One time per stratum, common to all points, or independent times for every point."""
    time_exponent: Positive = 2.5
    """Training times are u^exponent with u uniform."""
    precision: Literal["fp32"] = "fp32"
    """Arithmetic; bf16 would cost the log density 0.1 kT and more."""

    @model_validator(mode="after")
    def _check_weights(self) -> "EnergyConfig":
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
    num_exact: Annotated[int, Field(ge=10)] = 2_000
    """Of them, those with an exact likelihood, which corrects the learned one's delta_f."""
    num_exact_top: Annotated[int, Field(ge=0)] | None = None
    """Samples of the largest weights that get one too, there an error of the model decides most;
    null is a quarter of num_exact."""
    shard_size: Count = 1_000
    """Samples per shard."""
    exact_shard_size: Count = 50
    """Samples per shard of the exact likelihood."""
    clip_fraction: Fraction = 0.002
    """Share of the largest weights that is clipped."""
    num_bootstrap: Annotated[int, Field(ge=20)] = 500
    """Bootstrap resamples."""

    @model_validator(mode="after")
    def _check_counts(self) -> "EvaluateConfig":
        self._require(
            self.num_exact <= self.num_samples,
            "num_exact at most num_samples",
            "num_exact",
            "num_samples",
        )
        return self


class ClusterConfig(Section):
    """How the work is spread; results do not depend on it beyond rounding."""

    executor: Literal["ray", "local"] = "ray"
    """Where the work runs: on Ray, or all of it in the calling process."""
    num_workers: Count | None = None
    """Parallel workers of one thread each; null is one per core (per GPU if there are any)."""
    min_workers: Count | None = None
    """Let a training go on with as few when nodes are lost, and grow back; null is never."""
    require_gpus: bool = False
    """Refuse a cluster without GPUs; otherwise cores do the work where there are none."""
    strategy: Literal["ddp", "deepspeed", "sharded"] = "ddp"
    """How the workers of a training share the model: all hold it, or each a part of it."""
    zero_stage: Literal[1, 2, 3] = 1
    """What deepspeed spreads: the optimiser state, also the gradients, also the weights."""
    accumulation_steps: Count = 1
    """Equal parts in which a worker goes through its samples of a step, to save memory."""
    activation_checkpointing: bool = False
    """Compute the inside of a Cartesian model's layers again in the backward pass instead of
    keeping it: several times less memory, a third more time."""
    compile_force_field: bool = True
    """Compile the force field for simulations: half a minute once, then several times faster."""

    @model_validator(mode="after")
    def _check_strategy(self) -> "ClusterConfig":
        self._require(
            self.executor == "ray" or self.strategy == "ddp",
            "executor ray for a strategy of many workers",
            "executor",
            "strategy",
        )
        self._require(
            self.min_workers is None or self.min_workers <= (self.num_workers or 0),
            "min_workers of at most num_workers, which must be given",
            "min_workers",
            "num_workers",
        )
        return self


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

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    target: TargetConfig = TargetConfig()
    reference: ReferenceConfig = ReferenceConfig()
    dataset: DatasetConfig = DatasetConfig()
    emulator: EmulatorConfig = EmulatorConfig()
    transferable: TransferableConfig = TransferableConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    generate: GenerateConfig = GenerateConfig()
    energy: EnergyConfig = EnergyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
