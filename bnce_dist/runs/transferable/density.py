"""The stages of an energy model for many molecules, and of what it goes on to learn of one."""

import shutil
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import shared_zmatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import chain_templates, parse_sequence
from bnce_dist.core.device import worker_device
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.padded_tokens import packed
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space, Tokens
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.architectures import energy_matching
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.shared_architectures import (
    SharedEnergyConfig,
    build_shared_energy,
    build_shared_energy_matching,
)
from bnce_dist.generator.shared_density import SharedDensity
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.shared_generator import FILE_NAME as GENERATOR_FILE
from bnce_dist.generator.shared_generator import SharedGenerator, load_field
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.fitting import fit_model
from bnce_dist.pipeline.stages.generate import num_shards, require_finite
from bnce_dist.pipeline.stages.train_energy import fit_density
from bnce_dist.runs.transferable.internal import FILE_NAME as EMULATOR_FILE
from bnce_dist.runs.transferable.internal import HISTORY

FILE_NAME = "shared_energy.pt"
SHARD_SIZE = 1000
"""A transformer's attention of more samples at once leaves the cache."""


def sample_teachers(context: StageContext) -> None:
    """Leave the data set ``samples``: packed samples of the field of every training molecule."""
    path = context.inputs["train_emulator"] / EMULATOR_FILE
    num_samples = context.config.shared_energy.samples_per_molecule
    taught = context.config.transferable.training_molecules
    context.executor.map_shards(
        partial(TeacherSampler, path, taught, num_samples, (context.config.seed, "teachers")),
        len(taught) * num_shards(num_samples, SHARD_SIZE),
        context.folder / "samples",
        metadata=context.metadata({"rows": "1"}),
        label="generate",
    )


class TeacherSampler:
    """Draws the shards of a data set of samples of several molecules, molecule by molecule.

    Args:
        shared_path: File of the shared emulator.
        sequences: Of the molecules.
        num_samples: Of each molecule.
        stream: Key of the random stream; molecule and shard are added to it.
    """

    def __init__(
        self,
        shared_path: Path,
        sequences: tuple[str, ...],
        num_samples: int,
        stream: tuple[int | str, ...],
    ) -> None:
        self.shared = SharedEmulator.load(shared_path)
        self.sequences, self.num_samples, self.stream = sequences, num_samples, stream
        self.max_atoms = max(_num_atoms(sequence) for sequence in sequences)

    @lru_cache(maxsize=1)  # noqa: B019 - shards of one molecule follow each other
    def emulator(self, place: int) -> Emulator:
        """Return the emulator of one of the molecules; all of its types are known."""
        emulator, _ = self.shared.bound_to(Molecule.from_sequence(self.sequences[place]), {})
        return emulator.to(worker_device())

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return the packed samples of one shard, ``(samples, 1 + 4 max_atoms)``."""
        place, part = divmod(index, num_shards(self.num_samples, SHARD_SIZE))
        size = min(SHARD_SIZE, self.num_samples - part * SHARD_SIZE)
        emulator = self.emulator(place)
        z_prior = emulator.sample_prior(size, generator(*self.stream, place, part))
        z = require_finite(emulator.transport(z_prior)).cpu()
        tokens = emulator.space.tokens
        assert tokens is not None
        return {"rows": packed(z, tokens, place, self.max_atoms).numpy()}


def train_shared_energy(context: StageContext) -> None:
    """Train one energy model on the samples of all training molecules.

    Leaves ``shared_energy.pt``, and ``shared_generator.pt`` with the field as well.
    """
    config = context.config.shared_energy
    samples = ShardedDataset.open(context.inputs["generate"] / "samples")
    tokens = [tokens_of_sequence(name) for name in context.config.transferable.training_molecules]
    energy_model = build_shared_energy(config, tokens[0])
    fit_model(
        context,
        "energy",
        config,
        energy_model,
        partial(build_shared_energy_matching, config, tokens),
        samples.stream("rows"),
    )
    history = read_json(context.folder / HISTORY)
    _leave(context, SharedDensity(energy_model, history, config.interpolant))


def adopt_energy(context: StageContext) -> None:
    """Leave ``shared_energy.pt`` as it was given with the field, and how it was trained."""
    _, density = load_field(Path(str(context.config.transferable.field)))
    assert density is not None
    write_json(context.folder / HISTORY, density.history)
    _leave(context, density)


def _leave(context: StageContext, density: SharedDensity) -> None:
    density.save(context.folder / FILE_NAME)
    emulator = SharedEmulator.load(context.inputs["train_emulator"] / EMULATOR_FILE)
    whole = SharedGenerator(context.config.target, emulator, density)
    whole.save(context.folder / GENERATOR_FILE)
    context.tracker.log_model("energy", context.folder / FILE_NAME)


def bind_energy(context: StageContext) -> None:
    """Leave ``energy.pt`` of a molecule of whose samples the energy model has seen none."""
    field = context.inputs["field_energy"]
    emulator = Emulator.load(context.inputs["train_emulator"] / "emulator.pt")
    density = SharedDensity.load(field / FILE_NAME).of_molecule(emulator)
    density.save(context.folder / "energy.pt")
    shutil.copy(field / HISTORY, context.folder / HISTORY)
    context.tracker.log_model("energy", context.folder / "energy.pt")


def fine_tune_energy(context: StageContext) -> None:
    """Let the energy model learn on from the samples of one molecule; leave ``energy.pt``."""
    config = context.config
    path = context.inputs["zero_shot_energy"] / "energy.pt"
    density = LearnedDensity.load(path, molecule_identity=context.target.molecule.identity)
    emulator = Emulator.load(context.inputs["train_emulator"] / "emulator.pt")
    build_objective = partial(build_matching_from, path, config.shared_energy, emulator.space)
    fit_density(context, density, config.fine_tuning, build_objective)


def build_matching_from(path: Path, config: SharedEnergyConfig, space: Space) -> EnergyMatching:
    """Return the objective of one molecule around the energy model of a file."""
    return energy_matching(config, LearnedDensity.load(path).energy_model, space)


def _num_atoms(sequence: str) -> int:
    """Return the number of a molecule's atoms, which needs no positions."""
    return sum(len(one.atom_names) for one in chain_templates(parse_sequence(sequence)))


def tokens_of_sequence(sequence: str) -> Tokens:
    """Return the tokens of a molecule."""
    molecule = Molecule.from_sequence(sequence)
    return tokens_of(molecule, shared_zmatrix(molecule))
