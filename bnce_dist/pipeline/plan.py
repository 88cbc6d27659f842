"""What a run will need, worked out without starting anything."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import build_energy_model, build_velocity_field, space_of
from bnce_dist.generator.shared_architectures import build_field, build_token_field
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.training.loop import per_rank_batch_size, require_samples_for_all
from bnce_dist.training.settings import TrainingConfig

_FLOAT = 4
# Raw and averaged weights and two moments of Adam; the latest checkpoint and its copy.
_CHECKPOINT_COPIES = 4 * 2
# Trackers, figures and the records of the folder itself.
_REST_BYTES = 20_000_000


@dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Args:
        num_atoms: Atoms of the molecule.
        space: What the models live in.
        emulator_parameters: Weights of the velocity field.
        energy_parameters: Weights of the energy model.
        num_workers: Workers of a training.
        emulator_per_rank_batch_size: Samples per step and worker.
        energy_per_rank_batch_size: The same for the energy model.
        storage_bytes: What the run folder will hold, approximately.
        upload_bytes: What ``ray job submit --working-dir .`` uploads; None outside git.
    """

    num_atoms: int
    space: Space
    emulator_parameters: int
    energy_parameters: int
    num_workers: int
    emulator_per_rank_batch_size: int
    energy_per_rank_batch_size: int
    storage_bytes: int
    upload_bytes: int | None

    @classmethod
    def of(cls, config: Config, target: Target, space: Space) -> "Plan":
        """Plan a run on this machine.

        Args:
            config: Of the run.
            target: Of the run.
            space: What its models live in.

        Raises: InputError: a batch that does not divide by the configured number of workers, or
            an energy model or activation checkpointing for other coordinates.
        """
        if config.cluster.activation_checkpointing and not space.is_cartesian:
            raise InputError(
                "cluster.activation_checkpointing in internal coordinates",
                expected="false: their networks have no atoms and keep little",
                got="true",
                remedy="leave it out; cluster.accumulation_steps saves memory there",
            )
        if config.evaluate.temperatures_kelvin and space.is_cartesian:
            raise InputError(
                "evaluate.temperatures_kelvin in Cartesian coordinates",
                expected="none: samples of these models are not annealed",
                got=list(config.evaluate.temperatures_kelvin),
                remedy="leave it out, or train a model of this molecule alone",
            )
        emulator_config: TrainingConfig = config.emulator
        if space.node_features is not None:
            emulator_config = config.transferable
            field: nn.Module = build_field(config.transferable, len(space.node_features[0]))
        elif space.tokens is not None:
            emulator_config = config.transferable
            field = build_token_field(config.token_field, space.tokens)
        else:
            field = build_velocity_field(config.emulator, space)
        energy = build_energy_model(config.energy, space)
        parameters = _num_parameters(field), _num_parameters(energy)
        batches = (emulator_config.global_batch_size, config.energy.global_batch_size)
        num_workers = config.cluster.num_workers or _default_workers(config, batches)
        per_rank = [
            _per_rank(config, section, num_workers) for section in (emulator_config, config.energy)
        ]
        return cls(
            num_atoms=target.molecule.num_atoms,
            space=space,
            emulator_parameters=parameters[0],
            energy_parameters=parameters[1],
            num_workers=num_workers,
            emulator_per_rank_batch_size=per_rank[0],
            energy_per_rank_batch_size=per_rank[1],
            storage_bytes=_data_bytes(config, target.molecule.num_atoms, space.dim)
            + sum(parameters) * _FLOAT * _CHECKPOINT_COPIES
            + _REST_BYTES,
            upload_bytes=_upload_bytes(Path.cwd()),
        )

    def lines(self) -> list[str]:
        """Return the plan for people."""
        upload = "unknown (not a git checkout)"
        if self.upload_bytes is not None:
            upload = f"{self.upload_bytes / 1e6:.1f} MB"
        euclidean, circular = self.space.num_euclidean, self.space.num_circular
        return [
            f"molecule: {self.num_atoms} atoms, model space of "
            f"{euclidean} euclidean + {circular} circular coordinates",
            f"emulator: {self.emulator_parameters:,} parameters, "
            f"{self.emulator_per_rank_batch_size} samples per step on each of "
            f"{self.num_workers} workers",
            f"energy model: {self.energy_parameters:,} parameters, "
            f"{self.energy_per_rank_batch_size} samples per step on each of "
            f"{self.num_workers} workers",
            f"storage: about {self.storage_bytes / 1e6:.0f} MB",
            f"upload with ray job submit --working-dir .: {upload}",
        ]


def space_of_run(config: Config, molecule: Molecule, *, is_transferable: bool) -> Space:
    """Return the space that a run's models live in.

    Args:
        config: Of the run.
        molecule: Of the run.
        is_transferable: Whether it is of one field for many molecules.

    Raises: InputError: as `space_of`.
    """
    is_internal = config.transferable.internal
    return space_of(
        molecule,
        is_cartesian=is_transferable and not is_internal,
        has_tokens=is_transferable and is_internal,
        features=config.transferable.feature_set,
    )


def _per_rank(config: Config, section: TrainingConfig, num_workers: int) -> int:
    """Return the samples per step of a worker; of an elastic group's, the fewest."""
    settings = section.with_seed(config.seed)
    parts = config.cluster.accumulation_steps
    if config.cluster.min_workers is None:
        return per_rank_batch_size(settings, num_workers, accumulation_steps=parts)
    require_samples_for_all(settings.global_batch_size, num_workers * parts)
    return settings.global_batch_size // num_workers


def _default_workers(config: Config, batches: tuple[int, int]) -> int:
    """Return the most workers of this machine among which both batches divide."""
    parts = config.cluster.accumulation_steps
    candidates = range(1, (os.cpu_count() or 1) + 1)
    dividing = (n for n in candidates if all(batch % (n * parts) == 0 for batch in batches))
    return max(dividing, default=1)


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _data_bytes(config: Config, num_atoms: int, dim: int) -> int:
    """Return the size of all samples, compression aside."""
    frame, vector = 3 * num_atoms * _FLOAT, dim * _FLOAT
    reference, dataset, evaluate = config.reference, config.dataset, config.evaluate
    chains = reference.num_tasks * reference.num_phi * reference.num_psi
    intervals = reference.production_ps / reference.interval_ps
    positions = reference.production_ps / reference.positions_interval_ps
    # Angles, window and bias of every interval as recorded, and the angles with their weights.
    reference_bytes = chains * (intervals * (14 + 18) + positions * (frame + 16))
    dataset_frames = dataset.num_chains * dataset.frames_per_chain
    return round(
        reference_bytes
        + dataset_frames * (frame + vector)
        + config.generate.num_samples * 3 * vector
        + evaluate.num_samples * (frame + 3 * vector)
    )


def _upload_bytes(folder: Path) -> int | None:
    """Return the size of the files that git does not ignore, which is what Ray uploads."""
    if shutil.which("git") is None:
        return None
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        return None
    paths = [folder / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file())
