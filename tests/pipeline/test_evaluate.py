"""Samples of a Cartesian model: which are molecules, which are mapped, and what each weighs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.coordinates import CenteredCartesian
from bnce_dist.chem.features import dipeptide_features
from bnce_dist.core.space import Space
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.generator.architectures import EnergyConfig, build_energy_model
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.metrics import EvaluateConfig
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.pipeline.stages.evaluate import Evaluator, exact_subset

SCALE_NM = 0.2


@pytest.fixture(scope="module")
def target() -> Target:
    return Target.from_config(TargetConfig(sequence="GA", temperature_kelvin=310.0))


def test_mirror_images_are_mapped_and_broken_molecules_are_kept_without_weight(
    target: Target, tmp_path: Path
) -> None:
    molecule = target.molecule
    native = torch.from_numpy(molecule.positions_nm)
    broken = native.clone()
    broken[0] += 0.5
    coordinates = CenteredCartesian(molecule.num_atoms, SCALE_NM)
    z = coordinates.encode(torch.stack([native, -native, broken]))[0].float()
    features = dipeptide_features(molecule).tolist()
    config = EnergyConfig(architecture="distance", width=8, depth=1)
    model = build_energy_model(config, Space.of_atoms(features))
    density = LearnedDensity(molecule.identity, coordinates, model)
    density.save(tmp_path / "energy.pt")
    metadata = DatasetMetadata(molecule.identity, {"z": "1"})
    write_shard(tmp_path / "samples", 0, {"z": z.numpy()}, metadata)
    ShardedDataset.finish(tmp_path / "samples", 1, metadata)

    evaluated = Evaluator(target, tmp_path / "energy.pt", tmp_path / "samples")(0)

    assert evaluated["valid"].tolist() == [True, True, False]
    assert evaluated["mirrored"].tolist() == [False, True, False]
    assert evaluated["native_chirality"].tolist() == [True, True, True]
    potential = target.force_field.reduced_potential(native[None])[0]
    np.testing.assert_allclose(evaluated["reduced_potential"][:2], float(potential), atol=0.01)
    assert np.isposinf(evaluated["reduced_potential"][2])
    np.testing.assert_allclose(evaluated["phi"][0], evaluated["phi"][1], atol=1e-5)
    # The density of an L molecule: that of its two images, per volume of positions.
    of_image = density.log_density_z(z).double() - coordinates.dim * math.log(SCALE_NM)
    np.testing.assert_allclose(evaluated["log_density"], of_image + math.log(2), atol=1e-4)


def test_exact_likelihoods_go_to_the_first_samples_and_to_heavy_ones_of_each_side(
    target: Target, tmp_path: Path
) -> None:
    num_samples = 200
    native = np.arange(num_samples) != 198
    in_state = np.arange(num_samples) % 4 == 0
    arrays = {
        "reduced_potential": np.where(np.arange(num_samples) == 196, np.inf, 0.0),
        # The later, the heavier.
        "log_density": -np.arange(num_samples, dtype=float),
        "native_chirality": native,
        "phi": np.where(in_state, 1.0, -1.0),
        "psi": np.zeros(num_samples),
    }
    metadata = DatasetMetadata("any", dict.fromkeys(arrays, "1"))
    write_shard(tmp_path, 0, arrays, metadata)
    evaluated = ShardedDataset.finish(tmp_path, 1, metadata)
    config = EvaluateConfig(num_samples=num_samples, num_exact=20, num_exact_weighted=24)
    subset = exact_subset(evaluated, target, config)
    # Each weighs e times as much as the one before: all but a few of the heaviest weigh nothing.
    inside = np.arange(192, 144, -4)[:12]
    outside = [row for row in range(199, 0, -1) if row % 4 and row != 198][:12]
    assert subset.rows.tolist() == sorted([*range(20), *inside.tolist(), *outside])
    np.testing.assert_allclose(subset.inclusion[[192, 199]], 1.0)
    np.testing.assert_allclose(subset.inclusion[[0, 1, 196, 198]], 20 / num_samples)
    few = exact_subset(evaluated, target, config.model_copy(update={"num_exact_weighted": 0}))
    assert len(few.rows) == 20 + 2 * 10
