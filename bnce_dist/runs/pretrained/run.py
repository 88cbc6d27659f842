"""One run: samples of a pretrained field, their density learned, their weights to the target."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.simulation.training_data import permute_equivalent_hydrogens
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import file_sha256, require_writable
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset
from bnce_dist.generator.architectures import build_energy_matching, build_energy_model
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.artifact import digest_of
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.stages.annealing import (
    SCHEDULE_UNITS,
    annealed_fractions,
    load_annealer,
    schedule_from,
)
from bnce_dist.pipeline.stages.fitting import fit_in_folder
from bnce_dist.pipeline.stages.generate import num_shards
from bnce_dist.pipeline.stages.train_emulator import encode
from bnce_dist.runs.pretrained.annealing import ANNEALED_UNITS, AnnealingWorker, PilotWorker
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.field import PretrainedSampler
from bnce_dist.runs.pretrained.workers import (
    ENERGY_UNITS,
    LIKELIHOOD_UNITS,
    LIKELIHOODS_PER_SHARD,
    SAMPLE_UNITS,
    EnergyWorker,
    FieldWorker,
    LikelihoodWorker,
    valid_samples,
)
from bnce_dist.training.task import TrainingMetadata

_SAMPLING = {"num_steps", "time_exponent", "shard_size"}
"""Settings that decide a shard of samples."""
OTHER_RUN_REMEDY = "choose another --name or --output"


@dataclass(frozen=True)
class Evaluated:
    """Held-out samples of a pretrained field, weighted.

    Args:
        drawn: As the field made them.
        annealed: Where annealing brought them; None if it was not asked for.
        moves: What annealing did, as of `annealing_metrics`; None as before.
        log_density_training: Learned one of as many training samples [nats].
    """

    drawn: Samples
    annealed: Samples | None
    moves: Mapping[str, np.ndarray] | None
    log_density_training: np.ndarray

    @property
    def samples(self) -> Samples:
        """Those that the result is made of."""
        return self.annealed or self.drawn


class PretrainedRun:
    """What a run is made of, checked; nothing has been computed yet.

    Args:
        config: Of the run.
        folder: Of the run, absolute; whatever it holds already is not repeated.

    Raises: InputError: unusable weights, molecule, potential or folder, or more exact likelihoods
        than samples.
    """

    def __init__(self, config: PretrainedConfig, folder: Path) -> None:
        self.config, self.folder = config, RunFolder(folder)
        self.folder.require_same_run(config, OTHER_RUN_REMEDY)
        if config.evaluate.num_exact > config.samples.num_held_out:
            raise InputError(
                "evaluate.num_exact",
                expected=f"at most samples.num_held_out, {config.samples.num_held_out}",
                got=config.evaluate.num_exact,
                remedy="lower it, or draw more samples",
            )
        self.target = Target.from_config(config.target)
        self.weights = Path(config.weights).absolute()
        PretrainedSampler.load(self.weights, self.target.molecule)
        if config.target.potential == "xtb":
            self.target = self.target.with_xtb()

    def execute(self, executor: Executor) -> Evaluated:
        """Sample, learn, anneal, weigh; an interrupted run goes on where it was.

        Raises: InputError: the folder cannot be written, or training diverges.
        """
        require_writable(self.folder.path)
        with self.folder.lock():
            self.folder.write_config(self.config)
            samples = self._draw(executor, "samples", self.config.samples.num_training)
            density = self._learn(executor, samples)
            held_out = self._draw(executor, "held_out", self.config.samples.num_held_out)
            arrays = {**held_out.load(), **self._evaluate(executor, held_out).load()}
            seen = samples.load()
            started = time.process_time()
            log_density = _log_density(density, arrays)
            cpu_seconds = (time.process_time() - started) / len(log_density)
            drawn = self._samples(arrays, log_density, cpu_seconds)
            moves, annealed = None, None
            if self.config.evaluate.annealing.enabled:
                moves = self._anneal(executor, seen, held_out).load()
                moves["fractions"] = annealed_fractions(self.folder.path)
                in_state = self.target.state.contains(moves["phi"], moves["psi"])
                annealed = drawn.annealed(moves, in_state)
            exact = self._compute_likelihoods(executor, held_out, annealed or drawn)
        return Evaluated(
            drawn.with_exact(exact),
            annealed.with_exact(exact) if annealed else None,
            moves,
            _log_density(density, seen)[valid_samples(seen)][: len(log_density)],
        )

    def _samples(
        self, arrays: Mapping[str, np.ndarray], log_density: np.ndarray, cpu_seconds: float
    ) -> Samples:
        """Return the samples as they were drawn, none with an exact density yet."""
        number = len(log_density)
        return Samples(
            reduced_potential=arrays["reduced_potential"],
            log_density=log_density,
            log_density_exact=np.full(number, np.nan),
            num_random=self.config.evaluate.num_exact,
            phi=arrays["phi"],
            psi=arrays["psi"],
            in_state=self.target.state.contains(arrays["phi"], arrays["psi"]),
            valid=arrays["intact"],
            native_chirality=~arrays["mixed"],
            mirrored=arrays["mirrored"],
            inverted=None,
            cpu_seconds=np.full(number, cpu_seconds),
            cpu_seconds_exact=np.zeros(0),
        )

    def _draw(self, executor: Executor, name: str, num_samples: int) -> ShardedDataset:
        return executor.map_shards(
            self._field_worker(name, num_samples),
            num_shards(num_samples, self.config.samples.shard_size),
            self.folder.stage(name),
            metadata=self._metadata(SAMPLE_UNITS, samples=_SAMPLING),
            label=name.replace("_", " "),
        )

    def _field_worker(self, name: str, num_samples: int) -> Callable[[], FieldWorker]:
        stream = (self.config.seed, name)
        config, molecule = self.config.samples, self.target.molecule
        return partial(FieldWorker, self.weights, molecule, config, num_samples, stream)

    def _evaluate(self, executor: Executor, held_out: ShardedDataset) -> ShardedDataset:
        worker = partial(
            EnergyWorker, self.target.molecule, self.target.force_field, held_out.folder
        )
        return executor.map_shards(
            worker,
            len(held_out),
            self.folder.stage("energies"),
            metadata=self._metadata(ENERGY_UNITS, target=True, samples=_SAMPLING),
            label="evaluate",
        )

    def _anneal(
        self, executor: Executor, seen: Mapping[str, np.ndarray], held_out: ShardedDataset
    ) -> ShardedDataset:
        """Anneal held-out samples, by a schedule that was found on training samples."""
        config, seed = self.config.evaluate.annealing, self.config.seed
        make_annealer = partial(
            load_annealer,
            self.target,
            self.folder.stage("energy") / "energy.pt",
            compiled=False,
        )
        pilot_nm = seen["positions_nm"][valid_samples(seen)][: config.num_pilot]
        made_of: dict[str, bool | set[str]] = {
            "target": True,
            "samples": True,
            "energy": True,
            "evaluate": {"annealing"},
        }
        levels = executor.map_shards(
            partial(PilotWorker, make_annealer, pilot_nm, config, seed),
            1,
            self.folder.stage("annealed_schedule"),
            metadata=self._metadata(SCHEDULE_UNITS, **made_of),
            label="tune annealing",
        )
        schedule = schedule_from(levels.load())
        return executor.map_shards(
            partial(AnnealingWorker, make_annealer, schedule, held_out.folder, seed),
            len(held_out),
            self.folder.stage("annealed"),
            metadata=self._metadata(ANNEALED_UNITS, **made_of),
            label="anneal",
        )

    def _compute_likelihoods(
        self, executor: Executor, held_out: ShardedDataset, samples: Samples
    ) -> dict[str, np.ndarray]:
        """Return the rows of some samples, their exact log densities and what each took."""
        subset = self.config.evaluate.exact_subset(samples.log_weights_learned, samples.in_state)
        rows = subset.rows
        field = self._field_worker("held_out", self.config.samples.num_held_out)
        likelihoods = executor.map_shards(
            partial(LikelihoodWorker, field, rows),
            num_shards(len(rows), LIKELIHOODS_PER_SHARD),
            self.folder.stage("exact_by_weight"),
            metadata=self._metadata(
                LIKELIHOOD_UNITS, target=True, samples=True, energy=True, evaluate=True
            ),
            label="exact likelihood",
        )
        return likelihoods.load() | {"inclusion": subset.inclusion}

    def _learn(self, executor: Executor, samples: ShardedDataset) -> LearnedDensity:
        """Train the energy model on the samples that are the molecule."""
        folder, config = self.folder.stage("energy"), self.config.energy
        path, molecule = folder / "energy.pt", self.target.molecule
        if path.exists():
            return LearnedDensity.load(path, molecule_identity=molecule.identity)
        positions = self._training_positions(samples)
        coordinates = WhitenedInternal.fit(
            ZMatrix.from_graph(molecule.elements, molecule.bonds), positions
        )
        space = Space(coordinates.num_euclidean, coordinates.num_circular)
        energy_model = build_energy_model(config, space)
        fit_in_folder(
            folder,
            executor,
            energy_model,
            partial(build_energy_matching, config, space),
            [encode(coordinates, positions)],
            config.with_seed(self.config.seed),
            TrainingMetadata("energy", molecule.identity, energy_model.config()),
        )
        density = LearnedDensity(molecule.identity, coordinates, energy_model, config.interpolant)
        density.save(path)
        return density

    def _training_positions(self, samples: ShardedDataset) -> torch.Tensor:
        """Return every valid sample as often as asked, its equivalent hydrogens relabelled."""
        arrays = samples.load()
        valid = torch.from_numpy(arrays["positions_nm"][valid_samples(arrays)])
        if not len(valid):
            raise InputError(
                f"samples of {self.weights.name}",
                expected="molecules",
                got=f"{len(arrays['intact'])} samples, all broken",
                remedy="take more samples.num_steps",
            )
        copies = valid.repeat(self.config.samples.num_relabelled, 1, 1)
        return permute_equivalent_hydrogens(
            copies, self.target.molecule, generator(self.config.seed, "hydrogens")
        )

    def _metadata(self, units: dict[str, str], **sections: bool | set[str]) -> DatasetMetadata:
        """Return the label of a data set, which depends on these parts of the configuration."""
        settings = self.config.model_dump(mode="json", include={"seed": True, **sections})
        key = digest_of([settings, file_sha256(self.weights)])
        return DatasetMetadata(self.target.molecule.identity, units, {"key": key})


def _log_density(density: LearnedDensity, samples: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the learned log density of samples, ``(samples,)`` [nats]; zero if no molecule."""
    valid = valid_samples(samples)
    log_density = np.zeros(len(valid))
    positions = torch.from_numpy(samples["positions_nm"][valid])
    log_density[valid] = density.log_density(positions).numpy()
    return log_density
