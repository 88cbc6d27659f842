"""One run: samples of a pretrained field, their density learned, their weights to the target."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.potentials.openmm import ReducedPotential
from bnce_dist.chem.potentials.xtb import XTBPotential
from bnce_dist.chem.simulation.training_data import permute_equivalent_hydrogens
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import file_sha256
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset
from bnce_dist.generator.architectures import build_energy_matching, build_energy_model
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.artifact import digest_of
from bnce_dist.pipeline.executor import Executor
from bnce_dist.pipeline.stages.fitting import fit_in_folder
from bnce_dist.pipeline.stages.generate import num_shards
from bnce_dist.pipeline.stages.train_emulator import encode
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
_EXACT = _SAMPLING | {"num_held_out"}
"""Settings that decide which samples get an exact likelihood."""
OTHER_RUN_REMEDY = "choose another --name or --output"


class PretrainedRun:
    """What a run is made of, checked; nothing has been computed yet.

    Args:
        config: Of the run.
        folder: Of the run, absolute; whatever it holds already is not repeated.

    Raises: InputError: unusable weights, molecule, potential or folder.
    """

    def __init__(self, config: PretrainedConfig, folder: Path) -> None:
        self.config, self.folder = config, RunFolder(folder)
        self.folder.require_same_run(config, OTHER_RUN_REMEDY)
        self.target = Target.from_config(config.target)
        self.weights = Path(config.weights).absolute()
        PretrainedSampler.load(self.weights, self.target.molecule)
        self.potential: ReducedPotential = self.target.force_field
        if config.target.potential == "xtb":
            self.potential = XTBPotential(self.target.molecule, config.target.temperature_kelvin)

    def execute(self, executor: Executor) -> dict[str, np.ndarray]:
        """Sample, learn, weigh; an interrupted run goes on where it was.

        Returns: The held-out samples and what is known of each, by `workers.SAMPLE_UNITS` and
            `workers.ENERGY_UNITS`; ``log_density`` [nats], zero for samples that are not the
            molecule; the places of some samples, ``exact_row``, with their exact one,
            ``log_density_exact`` [nats]; and ``log_density_training`` [nats] of as many training
            samples.
        Raises: InputError: the folder cannot be written, or training diverges.
        """
        self.folder.write_config(self.config)
        with self.folder.lock():
            samples = self._draw(executor, "samples", self.config.samples.num_training)
            density = self._learn(executor, samples)
            held_out = self._draw(executor, "held_out", self.config.samples.num_held_out)
            arrays = {**held_out.load(), **self._evaluate(executor, held_out).load()}
            exact = self._compute_likelihoods(executor, arrays)
        valid, training = arrays["valid"], samples.load()
        seen = training["positions_nm"][valid_samples(training)][: len(valid)]
        log_density = np.zeros(len(valid))
        log_density[valid] = density.log_density(
            torch.from_numpy(arrays["positions_nm"][valid])
        ).numpy()
        return {
            **arrays,
            "log_density": log_density,
            "log_density_training": density.log_density(torch.from_numpy(seen)).numpy(),
            "exact_row": exact["row"],
            "log_density_exact": exact["log_density"],
        }

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
        worker = partial(EnergyWorker, self.target.molecule, self.potential, held_out.folder)
        return executor.map_shards(
            worker,
            len(held_out),
            self.folder.stage("energies"),
            metadata=self._metadata(ENERGY_UNITS, target=True, samples=_SAMPLING),
            label="evaluate",
        )

    def _compute_likelihoods(
        self, executor: Executor, held_out: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the rows of some samples and their exact log densities."""
        rows = rows_for_exact(
            self.target.state.contains(held_out["phi"], held_out["psi"]),
            held_out["valid"],
            self.config.evaluate.num_exact,
        )
        if not len(rows):
            return {"row": rows, "log_density": np.zeros(0)}
        likelihoods = executor.map_shards(
            partial(LikelihoodWorker, self._field_worker("held_out", len(held_out["phi"])), rows),
            num_shards(len(rows), LIKELIHOODS_PER_SHARD),
            self.folder.stage("exact"),
            metadata=self._metadata(LIKELIHOOD_UNITS, evaluate={"num_exact"}, samples=_EXACT),
            label="exact likelihood",
        )
        return likelihoods.load()

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


def rows_for_exact(in_state: np.ndarray, valid: np.ndarray, num_exact: int) -> np.ndarray:
    """Return which samples get an exact likelihood: half of them from each side of the state.

    Where one side has too few, all of them. The first samples of a side are as good as drawn from
    it at random.

    Args:
        in_state: Of every sample, ``(samples,)`` bool.
        valid: Whether it is the molecule, ``(samples,)`` bool.
        num_exact: How many at most.
    """
    inside = np.flatnonzero(valid & in_state)[: num_exact // 2]
    outside = np.flatnonzero(valid & ~in_state)[: num_exact - len(inside)]
    return np.concatenate([inside, outside])
