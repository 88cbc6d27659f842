"""More samples than memory should hold, drawn into a file; an interrupted call goes on."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.trajectory_file import write_frames, write_trajectory
from bnce_dist.data.array_file import write_archive
from bnce_dist.data.room import require_disk
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, fill_shards
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.ensemble_file import (
    ARCHIVE,
    WITH_TOPOLOGY,
    archive_of,
    fixed_arrays,
    output_files,
    require_output,
)

MOST_IN_MEMORY = 100_000
"""Samples that are held at once; more go through a folder of parts."""
SHARD_SIZE = 10_000
"""Samples of a part: whole batches, so that they are those of one call."""

_UNITS = {
    "positions_nm": "nm",
    "log_density": "nat",
    "reduced_potential": "kT",
    "log_weights": "nat",
    "phi": "rad",
    "psi": "rad",
}
# A PDB file has a line of 81 bytes per atom, and four more per model.
_PDB_LINE_BYTES, _PDB_LINES = 81, 4


@dataclass(frozen=True)
class WrittenSamples:
    """What is said of samples that are in files.

    Args:
        files: Where they are.
        num_samples: How many.
        num_rejected: Of them, those without weight.
        ess_fraction: Effective sample size over the number; None where no sample has a weight.
        num_levels: Of their annealing; 0 if they were not annealed.
        num_resampled: How many were drawn of them by their weights and are in the files instead; 0
            if none were.
        num_distinct: How many different ones are in the files.
    """

    files: list[Path]
    num_samples: int
    num_rejected: int
    ess_fraction: float | None
    num_levels: int
    num_resampled: int
    num_distinct: int


def sample_into_file(
    generator: BoltzmannGenerator,
    path: Path,
    num_samples: int,
    seed: int,
    show: Callable[[int], None],
    *,
    overwrite: bool = False,
    shard_size: int = SHARD_SIZE,
) -> WrittenSamples:
    """Draw the samples that `BoltzmannGenerator.sample` would and write them as it saves them.

    Parts wait in a hidden folder beside the file until all are there. The same call draws only
    those that are missing, also with another number of samples.

    Args:
        generator: Draws them.
        path: As for `write_ensemble`.
        num_samples: How many.
        seed: Of the noise.
        show: Called with the number of samples drawn.
        overwrite: Whether files that exist are to be replaced.
        shard_size: Samples of a part, whole batches.

    Raises: InputError: as for `write_ensemble`; the disk is too small, or the hidden folder holds
        samples of another model or seed.
    """
    require_output(path, overwrite=overwrite)
    parts = parts_folder(path)
    row_bytes, output_bytes = _bytes_per_sample(path.suffix, generator.molecule.num_atoms)
    there = sum(file.stat().st_size for file in parts.glob("*.npz"))
    missing = max(num_samples * row_bytes - there, 0)
    require_disk(path.parent, missing + num_samples * output_bytes)
    sizes = [min(shard_size, num_samples - first) for first in range(0, num_samples, shard_size)]
    provenance = {"seed": seed, "model": _fingerprint(generator), "shard_size": shard_size}
    samples = fill_shards(
        parts,
        sizes,
        lambda index: _part(generator, index * shard_size, sizes[index], seed),
        DatasetMetadata(generator.molecule.identity, _UNITS, provenance),
        show,
    )
    _write(path, generator, samples)
    num_rejected, ess_fraction = _summary(samples.stream("log_weights"), num_samples)
    shutil.rmtree(parts)
    files = output_files(path)
    return WrittenSamples(files, num_samples, num_rejected, ess_fraction, 0, 0, num_samples)


def parts_folder(path: Path) -> Path:
    """Return where the parts of a file wait for each other."""
    return path.with_name(f".{path.name}.parts")


def _part(
    generator: BoltzmannGenerator, first: int, num_samples: int, seed: int
) -> dict[str, np.ndarray]:
    arrays = generator.draw(num_samples, seed, first=first)
    positions, molecule = torch.from_numpy(arrays["positions_nm"]), generator.molecule
    torsions = {"phi": molecule.phi, "psi": molecule.psi}
    return arrays | {name: dihedral(positions, atoms).numpy() for name, atoms in torsions.items()}


def _write(path: Path, generator: BoltzmannGenerator, samples: ShardedDataset) -> None:
    molecule, names = generator.molecule, list(_UNITS)
    if path.suffix != ARCHIVE:
        names.remove("positions_nm")
        write_frames(path, molecule, samples.stream("positions_nm"))
    if path.suffix in WITH_TOPOLOGY:
        write_trajectory(output_files(path)[2], molecule, molecule.positions_nm[None])
    columns = {name: samples.stream(name) for name in names}
    arrays = fixed_arrays(path, generator.target)
    write_archive(archive_of(path), columns, samples.num_samples, arrays)


def _summary(log_weights: Iterator[np.ndarray], num_samples: int) -> tuple[int, float | None]:
    """Return the number of samples without weight, and the effective fraction of all."""
    num_rejected, log_sum, log_sum_of_squares = 0, -np.inf, -np.inf
    for part in log_weights:
        num_rejected += int(np.isneginf(part).sum())
        log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(part))
        log_sum_of_squares = np.logaddexp(log_sum_of_squares, np.logaddexp.reduce(2 * part))
    if num_rejected == num_samples:
        return num_rejected, None
    return num_rejected, float(np.exp(2 * log_sum - log_sum_of_squares)) / num_samples


def _bytes_per_sample(suffix: str, num_atoms: int) -> tuple[int, int]:
    """Return the bytes of a sample in the parts and, at most, in the files."""
    numbers, positions = 8 * (len(_UNITS) - 1), 24 * num_atoms
    of_suffix = {ARCHIVE: positions, ".pdb": _PDB_LINE_BYTES * (num_atoms + _PDB_LINES)}
    return positions + numbers, of_suffix.get(suffix, positions // 2) + numbers


def _fingerprint(generator: BoltzmannGenerator) -> str:
    """Return a digest of what decides the samples and their weights."""
    digest = hashlib.sha256(generator.target_config.model_dump_json().encode())
    for state in (generator.emulator.to_state(), generator.density.to_state()):
        digest.update(repr((state["model"], state["settings"])).encode())
        for tensors in (state["weights"], state["coordinates"]):
            for name, value in sorted(tensors.items()):
                is_tensor = isinstance(value, torch.Tensor)
                content = value.cpu().numpy().tobytes() if is_tensor else repr(value).encode()
                digest.update(name.encode() + content)
    return digest.hexdigest()
