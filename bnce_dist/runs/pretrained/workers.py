"""What computes the shards of a run on a pretrained field; all of it pickles."""

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.potentials.openmm import ReducedPotential
from bnce_dist.chem.validation import relabel_hydrogens, validate
from bnce_dist.core.device import worker_device
from bnce_dist.core.random import seed_from
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.runs.pretrained.config import PretrainedSamplesConfig
from bnce_dist.runs.pretrained.field import PretrainedSampler

SAMPLE_UNITS = {"positions_nm": "nm", "intact": "1", "mirrored": "1", "mixed": "1"}
LIKELIHOOD_UNITS = {"row": "1", "log_density": "nat", "inverted": "1", "cpu_seconds": "s"}
LIKELIHOODS_PER_SHARD = 20
ENERGY_UNITS = {"phi": "rad", "psi": "rad", "reduced_potential": "kT", "valid": "1"}


class FieldWorker:
    """Draws shards of samples from a pretrained field.

    The field tells neither hand from the other nor equivalent hydrogens apart. Samples are mapped
    to L and to the molecule's own labels, which divides their density by a constant.

    Args:
        weights: The field's file.
        molecule: The molecule.
        config: How it is sampled.
        num_samples: Samples of all shards together.
        stream: Key of the random stream; the shard's index is added to it.
    """

    def __init__(
        self,
        weights: Path,
        molecule: Molecule,
        config: PretrainedSamplesConfig,
        num_samples: int,
        stream: tuple[int | str, ...],
    ) -> None:
        self.sampler = PretrainedSampler.load(weights, molecule, device=worker_device())
        self.config, self.num_samples, self.stream = config, num_samples, stream

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard's samples and what is known of each; none is dropped."""
        config = self.config
        batches = self.sampler.sample(
            self._prior(index),
            num_steps=config.num_steps,
            batch_size=config.batch_size,
            time_exponent=config.time_exponent,
        )
        validation = validate(self.sampler.molecule, torch.cat(list(batches)))
        positions = relabel_hydrogens(self.sampler.molecule, validation.positions_nm)
        return {
            "positions_nm": positions.float().numpy(),
            "intact": validation.intact.numpy(),
            "mirrored": validation.mirrored.numpy(),
            "mixed": validation.mixed.numpy(),
        }

    def with_log_density(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return some of the samples again with their exact log density, seconds for each.

        Args:
            rows: Their places among the samples of all shards.

        Returns: As of `PretrainedSampler.sample_with_log_density`; positions are as the field gives
            them.
        """
        size = self.config.shard_size
        z_prior = [self._prior(row // size)[row % size] for row in rows]
        return self.sampler.sample_with_log_density(
            torch.stack(z_prior),
            num_steps=self.config.num_steps,
            time_exponent=self.config.time_exponent,
        )

    def _prior(self, index: int) -> torch.Tensor:
        """Return the noise that becomes a shard's samples."""
        size = self.config.shard_size
        num_samples = min(size, self.num_samples - index * size)
        return self.sampler.prior(num_samples, seed_from(*self.stream, index))


class LikelihoodWorker:
    """Computes exact log densities of some of the samples, shard by shard.

    Args:
        make_field: Builds what drew the samples.
        rows: Which of them.
    """

    def __init__(self, make_field: Callable[[], FieldWorker], rows: np.ndarray) -> None:
        self.field = make_field()
        self.shards = np.split(rows, range(LIKELIHOODS_PER_SHARD, len(rows), LIKELIHOODS_PER_SHARD))

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one shard's rows, log densities [nats], folds, and CPU time of each [s]."""
        rows, started = self.shards[index], time.process_time()
        _, log_density, inverted = self.field.with_log_density(rows.tolist())
        cpu_seconds = (time.process_time() - started) / len(rows)
        return {
            "row": rows,
            "log_density": log_density.numpy(),
            "inverted": inverted.numpy(),
            "cpu_seconds": np.full(len(rows), cpu_seconds),
        }


class EnergyWorker:
    """Evaluates shards of samples under the target.

    Args:
        molecule: The molecule.
        potential: The target.
        samples_folder: Data set that `FieldWorker` made.
    """

    def __init__(
        self, molecule: Molecule, potential: ReducedPotential, samples_folder: Path
    ) -> None:
        self.molecule, self.potential = molecule, potential
        self.device = torch.device("cpu")
        if isinstance(potential, ForceField):
            self.device = worker_device()
            self.potential = copy.deepcopy(potential).to(self.device)
        self.samples = ShardedDataset.open(samples_folder)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return torsions and energies of one shard's samples.

        Samples that are not the molecule get an infinite reduced potential, that is, weight zero.
        """
        samples = self.samples.read(index)
        valid = valid_samples(samples)
        positions = torch.from_numpy(samples["positions_nm"]).double()
        molecules = positions[torch.from_numpy(valid)].to(self.device)
        energies = self.potential.reduced_potential(molecules)
        reduced_potential = np.full(len(valid), np.inf)
        reduced_potential[valid] = energies.detach().cpu().numpy()
        return {
            "phi": dihedral(positions, self.molecule.phi).numpy(),
            "psi": dihedral(positions, self.molecule.psi).numpy(),
            "reduced_potential": reduced_potential,
            "valid": valid,
        }


def valid_samples(samples: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which samples of `FieldWorker` are the molecule, ``(samples,)`` bool."""
    return samples["intact"] & ~samples["mixed"]
