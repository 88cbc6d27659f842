"""More samples of a pretrained field than memory should hold, drawn into a file."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.validation import ValidatedPositions, validate
from bnce_dist.core.random import generator
from bnce_dist.data.array_file import write_archive
from bnce_dist.data.atomic import file_sha256
from bnce_dist.data.room import require_disk
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, fill_shards
from bnce_dist.generator.long_sample import parts_folder
from bnce_dist.runs.pretrained.field import PretrainedSampler, fixed_arrays

SHARD_SIZE = 4096
"""Samples of a part. Noise that is drawn in multiples of 16 numbers is that of one call."""
_UNITS = {"positions_nm": "nm", "intact": "1", "mirrored": "1", "mixed": "1"}


def sample_into_file(
    sampler: PretrainedSampler,
    weights: Path,
    path: Path,
    num_samples: int,
    seed: int,
    show: Callable[[int], None],
    *,
    num_steps: int,
    batch_size: int,
    shard_size: int = SHARD_SIZE,
) -> dict[str, int]:
    """Draw the samples of the noise of one seed and write them as `write_samples` does.

    Parts wait in a hidden folder beside the file until all are there; the same call draws only
    those that are missing.

    Args:
        sampler: Draws them.
        weights: Its file, whose digest labels the parts.
        path: The ``.npz`` file.
        num_samples: How many.
        seed: Of the noise.
        show: Called with the number of samples drawn.
        num_steps: Of the sampler.
        batch_size: Of the sampler.
        shard_size: Samples of a part, a multiple of 16.

    Returns: As `ValidatedPositions.counts`, over all samples.
    Raises: InputError: the disk is too small, the folder cannot be written, or the hidden one
        holds samples of other weights, seed or steps.
    """
    parts, dim = parts_folder(path), sampler.coordinates.dim
    row_bytes = 12 * sampler.molecule.num_atoms + len(_UNITS) - 1
    there = sum(file.stat().st_size for file in parts.glob("*.npz"))
    require_disk(path.parent, max(num_samples * row_bytes - there, 0) + num_samples * row_bytes)
    sizes = [min(shard_size, num_samples - first) for first in range(0, num_samples, shard_size)]
    noise, drawn = generator(seed, "prior"), iter(range(len(sizes)))

    def draw(index: int) -> dict[str, np.ndarray]:
        for at in drawn:
            z_prior = torch.randn(sizes[at], dim, generator=noise)
            if at == index:
                break
        batches = sampler.sample(z_prior, num_steps=num_steps, batch_size=batch_size)
        found = validate(sampler.molecule, torch.cat(list(batches)))
        arrays = {name: getattr(found, name).numpy() for name in _UNITS}
        return arrays | {"positions_nm": arrays["positions_nm"].astype(np.float32)}

    provenance = {"weights": file_sha256(weights), "seed": seed, "num_steps": num_steps}
    metadata = DatasetMetadata(
        sampler.molecule.identity, _UNITS, provenance | {"shard_size": shard_size}
    )
    samples = fill_shards(parts, sizes, draw, metadata, show)
    columns = {name: samples.stream(name) for name in _UNITS}
    write_archive(path, columns, num_samples, fixed_arrays(sampler.molecule))
    counts = _counts(samples)
    shutil.rmtree(parts)
    return counts


def _counts(samples: ShardedDataset) -> dict[str, int]:
    total: Counter[str] = Counter()
    for shard in samples:
        total.update(
            ValidatedPositions(**{k: torch.from_numpy(v) for k, v in shard.items()}).counts()
        )
    return dict(total)
