"""A run none of whose samples is its molecule: everything is written, and the verdict says why."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from bnce_dist.chem.coordinates import WhitenedInternal
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset, write_shard
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.results import run_metrics
from bnce_dist.runs.finished import FinishedRun
from bnce_dist.runs.report import write_report


def never(*arguments: object) -> torch.Tensor:
    """No sample is right, whatever is asked for."""
    samples = arguments[-1]
    assert isinstance(samples, torch.Tensor)
    return torch.zeros(len(samples), dtype=torch.bool)


def all_mirror_images(patch: pytest.MonkeyPatch) -> None:
    for module in ("generator.evaluation", "chem.boltzmann_density"):
        patch.setattr(f"bnce_dist.{module}.has_native_chirality", never)


def all_broken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WhitenedInternal, "validity", never)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "count"), [(all_mirror_images, "num_wrong_chirality"), (all_broken, "num_invalid")]
)
def test_a_run_whose_samples_are_all_rejected(
    run_job: Callable[..., Result],
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
    count: str,
) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    spoil(monkeypatch)
    command = ("--output", tmp_path, "--name", "run", "--resume", "evaluate.num_samples=200")
    result = run_job(*command, "evaluate.num_exact=20", "--json", "--strict")

    assert result.exit_code == 3, result.output
    metrics = read_json(folder / "metrics.json")
    assert json.loads(result.stdout) == metrics
    for name in ("delta_f_kT", "delta_f_interval_kT", "delta_f_exact_kT", "ess_fraction"):
        assert metrics[name] is None
    assert metrics["num_rejected"] == metrics["ess_num_samples"] == metrics[count] == 200
    assert metrics["verdict"]["reasons"][0].startswith("All 200 samples are broken or of the wrong")
    assert metrics["delta_f_reference_run_kT"] is not None
    annealed = ShardedDataset.open(folder / "evaluate" / "annealed").load(["log_weights"])
    assert np.isneginf(annealed["log_weights"]).all()
    generator = BoltzmannGenerator.load(folder / "generator.pt")
    assert generator.metrics["ess_fraction"] is None

    page = (folder / "report.html").read_text()
    assert "All 200 samples are broken or of the wrong chirality" in page
    assert write_report(folder).read_text() == page
    again = run_job(*command, "evaluate.num_exact=20")
    assert again.exit_code == 0, again.output
    assert "delta_f              none" in again.stdout
    assert "UNRELIABLE: All 200 samples" in again.stdout


@pytest.mark.slow
def test_before_annealing_one_side_may_have_no_weight(finished_run: Path) -> None:
    run = FinishedRun.open(finished_run)
    drawn = run.evaluation.drawn
    nowhere = replace(drawn, in_state=np.zeros_like(drawn.in_state))
    evaluation = replace(run.evaluation, drawn=nowhere, frames=None)
    metrics = run_metrics(evaluation, run.config, run.target)
    before = read_json(finished_run / "metrics.json")
    for name in ("delta_f_kT", "ess_fraction", "energy_w2_kT"):
        assert metrics[name] == before[name]
    for name in ("delta_f_one_step_kT", "energy_w2_one_step_kT", "torsion_w2_one_step_rad"):
        assert before[name] is not None
        assert metrics[name] is None


@pytest.mark.slow
def test_one_simulation_is_one_replica(finished_run: Path, tmp_path: Path) -> None:
    """Walkers of one exchange windows, and share what they are levelled by."""
    run = FinishedRun.open(finished_run)
    frames = run.reference_frames()
    assert frames is not None
    assert len(set(frames.replica)) == run.config.reference.num_tasks
    shutil.copytree(finished_run, tmp_path / "run")
    umbrella = ShardedDataset.open(finished_run / "simulate" / "umbrella")
    one = tmp_path / "run" / "simulate" / "umbrella"
    shutil.rmtree(one)
    write_shard(one, 0, umbrella.read(0), umbrella.metadata)
    ShardedDataset.finish(one, 1, umbrella.metadata)
    alone = replace(run, folder=RunFolder(tmp_path / "run")).reference_frames()
    assert alone is not None
    assert set(alone.replica) == {0}
