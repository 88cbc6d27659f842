"""A model none of whose samples is its molecule: everything is written, and the verdict says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from bnce_dist.chem.molecule import Molecule
from bnce_dist.cli.main import app
from bnce_dist.core.errors import InputError
from bnce_dist.generator import evaluation
from bnce_dist.generator.boltzmann_generator import BATCH
from bnce_dist.generator.long_sample import sample_into_file
from bnce_dist.generator.shipped import load_shipped


@pytest.fixture(autouse=True)
def every_sample_is_a_mirror_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(molecule: Molecule, positions_nm: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(positions_nm), dtype=torch.bool)

    monkeypatch.setattr(evaluation, "has_native_chirality", never)


def bnce(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--sequence", "ACE-ALA-NME", "-n", "200"])


@pytest.mark.parametrize("suffix", [".npz", ".dcd"])
def test_samples_are_written_with_the_reason(tmp_path: Path, suffix: str) -> None:
    result = bnce("sample", "-o", str(tmp_path / f"s{suffix}"), "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["num_rejected"], record["ess_fraction"]) == (200, None)
    assert not record["verdict"]["reliable"]
    assert record["verdict"]["reasons"][0].startswith("All 200 samples are broken or of the wrong")
    assert all(Path(file).stat().st_size for file in record["files"])
    numbers = tmp_path / ("s.npz" if suffix == ".npz" else "s.weights.npz")
    assert np.isneginf(np.load(numbers)["log_weights"]).all()
    text = bnce("sample", "-o", str(tmp_path / f"t{suffix}")).stdout
    assert "UNRELIABLE: All 200 samples" in text
    assert "emulator.num_steps" in text


def test_an_estimate_is_null_and_unreliable() -> None:
    result = bnce("evaluate", "--json", "--strict")
    assert result.exit_code == 3, result.output
    record = json.loads(result.stdout)
    for name in ("delta_f_kT", "delta_f_interval_kT", "ess_fraction", "ess_in_state", "pareto_k"):
        assert record[name] is None
    assert record["num_rejected"] == record["ess_num_samples"] == 200
    assert "UNRELIABLE: All 200 samples" in bnce("evaluate").stdout


def test_an_ensemble_knows_and_many_samples_too(tmp_path: Path) -> None:
    generator = load_shipped("ACE-ALA-NME")
    ensemble = generator.sample(10, progress=False)
    assert not ensemble.has_weight
    assert not ensemble.verdict.reliable
    with pytest.raises(InputError, match="at least one above -inf"):
        _ = ensemble.ess_fraction
    written = sample_into_file(
        generator, tmp_path / "s.npz", 2 * BATCH, 0, lambda done: None, shard_size=BATCH
    )
    assert (written.num_rejected, written.ess_fraction) == (2 * BATCH, None)
