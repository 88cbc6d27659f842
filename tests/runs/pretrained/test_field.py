"""From a pretrained file to molecules in our order of atoms, by one command."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.chem.coordinates import CenteredCartesian
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import has_the_bonds_of, validate
from bnce_dist.cli.sample_pretrained import app
from bnce_dist.runs.pretrained.config import PretrainedSamplesConfig
from bnce_dist.runs.pretrained.field import PRETRAINED_FIELDS, PretrainedSampler, write_samples
from bnce_dist.runs.pretrained.long_sample import sample_into_file
from bnce_dist.runs.pretrained.workers import FieldWorker

FOLDER = Path(__file__).parents[3].parent / "shared" / "reference" / "published"
TRANSFERABLE = "trained_vector_9_layer_kabsch_aa2_ema.pt"
needs_weights = pytest.mark.skipif(not FOLDER.exists(), reason="pretrained weights are not here")


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


def sample(weights: Path, output: Path, *arguments: str | int) -> Result:
    command = [weights, "-o", output, "--num-samples", 8, "--num-steps", 12, *arguments]
    return CliRunner().invoke(app, [str(part) for part in command])


@needs_weights
@pytest.mark.parametrize("file", PRETRAINED_FIELDS)
def test_every_published_field_gives_molecules(tmp_path: Path, file: str) -> None:
    """Wrong units, order, features or parametrisation would break every molecule."""
    sequence = "AC" if file == TRANSFERABLE else "ACE-ALA-NME"
    result = sample(FOLDER / file, tmp_path / "samples.npz", "--sequence", sequence)
    assert result.exit_code == 0, result.output
    molecule = Molecule.from_sequence(sequence)
    arrays = np.load(tmp_path / "samples.npz")
    assert tuple(arrays["atom_names"]) == molecule.atom_names
    positions = torch.from_numpy(arrays["positions_nm"])
    intact = has_the_bonds_of(molecule, positions)
    assert intact.tolist() == arrays["intact"].tolist()
    assert intact.sum() >= 7
    assert f"num_broken{8 - int(intact.sum()):>12}" in result.stdout


@needs_weights
def test_samples_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    for size in (8, 3):
        sample(FOLDER / "unweighted_ot.pt", tmp_path / f"{size}.npz", "--batch-size", size)
    positions = [np.load(tmp_path / f"{size}.npz")["positions_nm"] for size in (8, 3)]
    np.testing.assert_allclose(*positions, atol=1e-4)


def test_many_samples_are_those_of_one_call(molecule: Molecule, tmp_path: Path) -> None:
    path, options = tmp_path / "parts.npz", {"num_steps": 2, "batch_size": 16}
    coordinates = CenteredCartesian(molecule.num_atoms, 0.1)
    sampler = PretrainedSampler(molecule, coordinates, lambda z, t: -z)
    weights = tmp_path / "weights.pt"
    weights.write_text("their digest labels the parts")

    def draw(num_samples: int, show: Callable[[int], None]) -> dict[str, int]:
        return sample_into_file(
            sampler, weights, path, num_samples, 3, show, shard_size=16, **options
        )

    def interrupt(done: int) -> None:
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(70, interrupt)
    counts = draw(70, lambda done: None)
    assert sorted(tmp_path.iterdir()) == [path, weights]
    expected = validate(
        sampler.molecule, torch.cat(list(sampler.sample(sampler.prior(70, 3), **options)))
    )
    assert counts == expected.counts()
    write_samples(tmp_path / "memory.npz", sampler.molecule, expected)
    with np.load(path) as arrays, np.load(tmp_path / "memory.npz") as others:
        assert set(arrays) == set(others)
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name])


def test_exact_densities_are_of_molecules(molecule: Molecule) -> None:
    """A field that only scales makes Gaussian atoms, of which sixteen images are one molecule."""
    coordinates = CenteredCartesian(molecule.num_atoms, scale_nm=0.1)
    sampler = PretrainedSampler(molecule, coordinates, lambda z, t: 0.5 * z)  # type: ignore[arg-type]
    z_prior = sampler.prior(3, seed=0).double()
    positions, log_density, _ = sampler.sample_with_log_density(z_prior, num_steps=4)
    squares = positions.square().sum((1, 2))
    width = (squares / z_prior.square().sum(1)).sqrt()
    assert 0.05 < width.max() < 0.08
    log_gaussian = -0.5 * squares / width**2 - 63 * (width.log() + 0.5 * math.log(2 * math.pi))
    # Two hands, and two numberings in each of three methyl groups; all orientations.
    images = math.log(2 * 2**3 * 8 * math.pi**2 / 22**1.5)
    torch.testing.assert_close(log_density, log_gaussian + images)


@needs_weights
def test_exact_densities_are_of_the_samples_asked_for(molecule: Molecule) -> None:
    config = PretrainedSamplesConfig(num_steps=2, shard_size=3)
    worker = FieldWorker(FOLDER / "unweighted_ot.pt", molecule, config, 5, (0, "held out"))
    drawn = np.concatenate([worker(index)["positions_nm"] for index in range(2)])
    again, log_density, _ = worker.with_log_density([4, 1])
    assert log_density.isfinite().all()
    # Mirrored and renumbered or not, a molecule has the same distances.
    distances = (torch.pdist(x).sort().values for x in (*again, *torch.from_numpy(drawn[[4, 1]])))
    first, second, *expected = (x.float() for x in distances)
    torch.testing.assert_close(
        torch.stack([first, second]), torch.stack(expected), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("file", "arguments", "parts"),
    [
        ("unweighted_ot_emma.pt", [], ["unweighted_ot_emma.pt", "unweighted_ot_ema.pt"]),
        ("unweighted_ot.pt", [], ["got nothing", "check the path"]),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, file: str, arguments: list[str], parts: list[str]
) -> None:
    assert_refused(sample(tmp_path / file, tmp_path / "x.npz", *arguments), *parts)


def test_the_output_is_looked_at_before_the_weights(tmp_path: Path) -> None:
    weights, path = tmp_path / "unweighted_ot.pt", tmp_path / "x.npz"
    path.write_text("precious")
    assert_refused(sample(weights, path), "x.npz", "--overwrite")
    assert path.read_text() == "precious"
    assert_refused(sample(weights, path, "--overwrite"), str(weights))
    assert_refused(sample(weights, tmp_path / "x.dcd"), "expected .npz, got '.dcd'")
    assert_refused(sample(weights, path / "y.npz"), str(path), "choose another --output")


@needs_weights
@pytest.mark.parametrize(
    ("file", "arguments", "parts"),
    [
        ("unweighted_ot_ema.pt", ["--sequence", "AC"], ["ACE-ALA-NME", "got AC"]),
        (TRANSFERABLE, [], ["--sequence"]),
        (TRANSFERABLE, ["--sequence", "ACE-ALA-NME"], ["uncapped dipeptide"]),
        (TRANSFERABLE, ["--sequence", "AXA"], ["did you mean"]),
    ],
)
def test_molecules_the_field_was_not_trained_on(
    tmp_path: Path, file: str, arguments: list[str], parts: list[str]
) -> None:
    assert_refused(sample(FOLDER / file, tmp_path / "x.npz", *arguments), *parts)


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    for part in ("error: ", *parts):
        assert part in line
