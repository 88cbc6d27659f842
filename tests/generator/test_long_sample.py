"""Many samples: the same files as from memory, in bounded memory, and none drawn twice."""

import dataclasses
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import mdtraj
import numpy as np
import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.data import room
from bnce_dist.generator.boltzmann_generator import BATCH, BoltzmannGenerator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.generator.long_sample import (
    WrittenSamples,
    _fingerprint,
    parts_folder,
    sample_into_file,
)
from bnce_dist.generator.shipped import load_shipped

NUM_SAMPLES = 2500


@pytest.fixture(scope="module")
def generator() -> BoltzmannGenerator:
    return load_shipped("ACE-ALA-NME")


@pytest.fixture(scope="module")
def ensemble(generator: BoltzmannGenerator) -> Ensemble:
    return generator.sample(NUM_SAMPLES, seed=4, progress=False)


def draw(
    generator: BoltzmannGenerator,
    path: Path,
    num_samples: int = NUM_SAMPLES,
    show: Callable[[int], None] = lambda done: None,
) -> WrittenSamples:
    return sample_into_file(generator, path, num_samples, 4, show, shard_size=BATCH)


@pytest.mark.parametrize("suffix", [".npz", ".dcd", ".pdb", ".xtc"])
def test_files_are_those_of_an_ensemble_in_memory(
    generator: BoltzmannGenerator, ensemble: Ensemble, tmp_path: Path, suffix: str
) -> None:
    expected = ensemble.save(tmp_path / "memory" / f"s{suffix}")
    written = draw(generator, tmp_path / "parts" / f"s{suffix}")
    assert [path.name for path in written.files] == [path.name for path in expected]
    assert sorted(written.files) == sorted((tmp_path / "parts").iterdir())
    for own, other in zip(written.files, expected, strict=True):
        if own.suffix == ".npz":
            with np.load(own) as arrays, np.load(other) as others:
                assert set(arrays) == set(others)
                for name in arrays:
                    if arrays[name].dtype.kind != "f":
                        assert np.array_equal(arrays[name], others[name])
                        continue
                    # Some processors round the last torsions of a batch another way.
                    np.testing.assert_allclose(arrays[name], others[name], rtol=1e-14, atol=0)
        elif own.suffix == ".pdb" or own.suffix == ".xtc":
            assert own.read_bytes() == other.read_bytes()
        else:  # Its header holds a date.
            topology = generator.molecule.topology
            one, two = (
                mdtraj.load(str(path), top=mdtraj.Topology.from_openmm(topology))
                for path in (own, other)
            )
            np.testing.assert_array_equal(one.xyz, two.xyz)
    assert written.num_samples == NUM_SAMPLES
    assert written.num_rejected == ensemble.num_rejected
    assert written.ess_fraction == pytest.approx(ensemble.ess_fraction, rel=1e-12)


def test_a_file_keeps_what_exact_densities_change(ensemble: Ensemble, tmp_path: Path) -> None:
    """The learned density lacks a constant in the state, as the first samples show."""
    shift = np.where(ensemble.in_state, 0.7, 0.0)
    exact = np.where(np.arange(NUM_SAMPLES) < 1000, ensemble.log_weights + shift, np.nan)
    corrected = dataclasses.replace(ensemble, log_weights_exact=exact, num_random=1000)
    corrected.save(tmp_path / "s.npz")
    truth = np.exp(ensemble.log_weights - ensemble.log_weights.max() + shift)
    with np.load(tmp_path / "s.npz") as arrays:
        weights = np.exp(arrays["log_weights_corrected"] - arrays["log_weights_corrected"].max())
        np.testing.assert_array_equal(arrays["log_weights_exact"], exact)
    share = weights[ensemble.in_state].sum() / weights.sum()
    assert share == pytest.approx(truth[ensemble.in_state].sum() / truth.sum(), rel=1e-9)
    assert share == pytest.approx(corrected.delta_f(num_bootstrap=20).weight_in_state, rel=1e-9)

    one_sided = np.where(ensemble.in_state, -np.inf, exact)
    weights = np.where(ensemble.in_state, -np.inf, ensemble.log_weights)
    dataclasses.replace(corrected, log_weights=weights, log_weights_exact=one_sided).save(
        tmp_path / "one.npz"
    )
    with np.load(tmp_path / "one.npz") as arrays:
        assert "log_weights_corrected" not in arrays


def test_an_interrupted_call_draws_only_what_is_missing(
    generator: BoltzmannGenerator, ensemble: Ensemble, tmp_path: Path
) -> None:
    path = tmp_path / "s.npz"

    def interrupt(done: int) -> None:
        if done == 2 * BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(generator, path, show=interrupt)
    assert not path.exists()
    with (parts_folder(path) / "shard_00000.npz").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff\xff\xff")  # Damaged, so it is missing.
    drawn: list[int] = []
    original = BoltzmannGenerator.draw

    def counted(self: BoltzmannGenerator, num: int, seed: int, **options: int) -> dict:
        drawn.append(options["first"])
        return original(self, num, seed, **options)

    with patch.object(BoltzmannGenerator, "draw", counted):
        draw(generator, path)
    assert drawn == [0, 2 * BATCH]
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["log_weights"], ensemble.log_weights)
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_another_seed_are_not_mixed_in(
    generator: BoltzmannGenerator, tmp_path: Path
) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(generator, tmp_path / "s.npz", show=interrupt)
    with pytest.raises(InputError, match=r"\.s\.npz\.parts.*delete this one"):
        sample_into_file(
            generator, tmp_path / "s.npz", NUM_SAMPLES, 5, lambda done: None, shard_size=BATCH
        )


class _OnGpu(torch.Tensor):
    """A tensor that stands in for one on a GPU: only its copy on the CPU becomes an array."""

    def numpy(self) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_parts_drawn_on_a_gpu_are_those_of_the_same_model_on_the_cpu(
    generator: BoltzmannGenerator,
) -> None:
    expected = _fingerprint(generator)
    on_gpu = {
        name: tensor.as_subclass(_OnGpu)
        for name, tensor in generator.emulator.to_state()["weights"].items()
    }
    state = generator.emulator.to_state() | {"weights": on_gpu}
    with patch.object(Emulator, "to_state", lambda self: state):
        assert _fingerprint(generator) == expected


def peak_bytes(generator: BoltzmannGenerator, path: Path, num_samples: int) -> int:
    tracemalloc.start()
    draw(generator, path, num_samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_samples(
    generator: BoltzmannGenerator, tmp_path: Path
) -> None:
    few, many = (peak_bytes(generator, tmp_path / f"{n}.npz", n * BATCH) for n in (2, 8))
    one_part = BATCH * 8 * (3 * generator.molecule.num_atoms + 5)
    assert few > one_part, "what is measured is there"
    assert many < few + one_part


def test_too_small_a_disk_is_told_before_anything_is_drawn(
    generator: BoltzmannGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    # 10 million samples of 22 atoms, twice: the parts, and the file that is made of them.
    match = r"disk of .*: expected 11360 MB free, got 1 MB; free space"
    with pytest.raises(InputError, match=match):
        draw(generator, tmp_path / "s.npz", 10_000_000)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_told_before_anything_is_drawn(
    generator: BoltzmannGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "available_memory", lambda: 10**9)
    with pytest.raises(InputError, match=r"memory for 10000000 samples.*got 1000 MB.*bnce sample"):
        generator.sample(10_000_000, progress=False)
