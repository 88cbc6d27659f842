"""From a published file to molecules in our order of atoms, by one command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import has_the_bonds_of
from bnce_dist.cli.published import app
from bnce_dist.pipeline.published.field import PUBLISHED_FIELDS

FOLDER = Path(__file__).parents[2].parent / "shared" / "reference" / "published"
TRANSFERABLE = "trained_vector_9_layer_kabsch_aa2_ema.pt"
needs_weights = pytest.mark.skipif(not FOLDER.exists(), reason="published weights are not here")


def sample(weights: Path, output: Path, *arguments: str | int) -> Result:
    command = [weights, "-o", output, "--num-samples", 8, "--num-steps", 12, *arguments]
    return CliRunner().invoke(app, [str(part) for part in command])


@needs_weights
@pytest.mark.parametrize("file", PUBLISHED_FIELDS)
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
