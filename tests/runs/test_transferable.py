"""One field for many molecules, from simulations of two to a table about a third."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import validate
from bnce_dist.cli.evaluate import evaluation_record
from bnce_dist.cli.train import app
from bnce_dist.core.mean_free import to_mean_free, zero_sum_basis
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.plan import Plan

SMOKE = Path(__file__).parents[2] / "jobs" / "configs" / "transferable_smoke.yaml"
BANDWIDTH_NM = 0.002
RUNS = ("GA_zero_shot", "GA_fine_tuned")
MIXED = "transferable.training_molecules=[GA,ACE-GLY-NME]"


def run_job(*arguments: str | Path) -> Result:
    command = ["--transferable", "--config", SMOKE, *arguments, "cluster.executor=local"]
    return CliRunner().invoke(app, [str(part) for part in command])


class KernelFlow:
    """The exact flow from noise to a kernel density of simulated frames and their mirror images.

    A field of twenty steps makes no molecules. This one takes its place in the sampler, so that
    everything after it has molecules to work on, half of them of the wrong chirality.
    """

    def __init__(self, folder: Path, run: str = RUNS[0]) -> None:
        self.folder, self.run = folder, run

    @cache  # noqa: B019
    def centres(self) -> tuple[Tensor, float]:
        """Return the frames in model space, ``(frames, dim)``, and the kernel's width there."""
        run = self.folder / self.run
        positions = ShardedDataset.open(run / "simulate" / "umbrella").load()["positions_nm"]
        emulator = Emulator.load(run / "train_emulator" / "emulator.pt")
        _, scale_nm = emulator.cartesian_field()
        frames = torch.from_numpy(positions).flatten(0, 1)
        z = to_mean_free(frames, zero_sum_basis(frames.shape[1]).float()) / scale_nm
        return torch.cat([z, -z]), BANDWIDTH_NM / scale_nm

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the velocity of straight lines, averaged over where a point may come from."""
        centres, width = self.centres()
        t = t[:, None]
        variance = (1 - t) ** 2 * width**2 + t**2
        # |z - (1 - t) c|^2 without the part that all centres share.
        overlap = (1 - t) * (z @ centres.T) - 0.5 * (1 - t) ** 2 * centres.square().sum(1)
        mean = (overlap / variance).softmax(1) @ centres
        slope = (t - (1 - t) * width**2) / variance
        return slope * (z - (1 - t) * mean) - mean


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    flow = KernelFlow(output / "done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeanFreeVelocity, "forward", lambda _, z, t: flow.velocity(z, t))
        result = run_job("--output", output, "--name", "done", "--molecules", "GA")
    assert result.exit_code == 0, result.output
    return output / "done"


@pytest.mark.slow
def test_the_table_has_a_row_zero_shot_and_one_fine_tuned(finished: Path) -> None:
    record = read_json(finished / "fleet.json")
    assert tuple(record["molecules"]) == RUNS
    table = (finished / "fleet.md").read_text()
    for name, metrics in record["molecules"].items():
        numbers = [value for value in metrics.values() if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers)
        evaluated = ShardedDataset.open(finished / name / "evaluate" / "evaluated").load()
        # Nothing is dropped: what is no molecule counts as a sample of weight zero.
        assert metrics["ess_num_samples"] == len(evaluated["valid"]) == 200
        usable = evaluated["valid"] & evaluated["native_chirality"]
        assert usable.sum() > 100
        assert metrics["num_rejected"] >= (~usable).sum()
        assert metrics["num_mirrored"] == (usable & evaluated["mirrored"]).sum()
        # Both hands are equally likely.
        assert abs(metrics["num_mirrored"] / usable.sum() - 0.5) < 4 * 0.5 / usable.sum() ** 0.5
        assert f"| {name} |" in table
        assert (finished / name / "report.html").exists()
    summary = record["summary"]
    assert math.isfinite(summary["zero_shot_abs_error_mean_kT"])
    assert math.isfinite(summary["fine_tuned_abs_error_mean_kT"])


@pytest.mark.slow
def test_exact_likelihoods_are_those_of_the_kernel_density(finished: Path) -> None:
    centres, width = KernelFlow(finished).centres()
    stage = finished / RUNS[0] / "evaluate"
    shards = ShardedDataset.open(stage / "exact").load()
    exact = shards["log_density_z"]
    z = torch.from_numpy(ShardedDataset.open(stage / "held_out").load()["z"][shards["row"]])
    kernels = -0.5 * (torch.cdist(z, centres) / width).square()
    normalisation = z.shape[1] * math.log(width * math.sqrt(2 * math.pi)) + math.log(len(centres))
    expected = kernels.logsumexp(1).double() - normalisation
    # Eight steps of the solver, for a density of about 160 nats.
    assert np.abs(exact - expected.numpy()).mean() < 4
    assert abs(np.median(exact - expected.numpy())) < 2


@pytest.mark.slow
def test_the_field_is_trained_on_the_teachers_and_then_on_its_own_molecules(finished: Path) -> None:
    molecules = {name: Molecule.from_sequence(name) for name in ("GG", "AG", "GA")}
    rows = np.load(finished / "field" / "train_emulator" / "z.npy")
    assert rows.shape == (2 * 128, 1 + 3 * molecules["AG"].num_atoms)
    assert (rows[:, 0] == np.repeat([0, 1], 128)).all()
    assert not rows[:128, 1 + 3 * molecules["GG"].num_atoms :].any()
    # One unit of length for all molecules: unit variance in 3 (N - 1) dimensions.
    dims = sum(128 * 3 * (molecules[name].num_atoms - 1) for name in ("GG", "AG"))
    assert np.square(rows[:, 1:]).sum() / dims == pytest.approx(1, rel=1e-4)

    zero_shot, fine_tuned = (
        Emulator.load(finished / run / "train_emulator" / "emulator.pt") for run in RUNS
    )
    field, scale_nm = zero_shot.cartesian_field()
    before, after = field.state_dict(), fine_tuned.cartesian_field()[0].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # Few small steps from the zero-shot weights, not from new ones.
    assert all((before[name] - after[name]).abs().max() < 0.05 for name in before)
    rows = np.load(finished / RUNS[1] / "train_emulator" / "z.npy")
    positions = scale_nm * torch.from_numpy(rows[:, 1:]).unflatten(1, (-1, 3))
    validation = validate(molecules["GA"], positions)
    assert validation.valid.all()
    assert not validation.mirrored.any()


@pytest.mark.slow
def test_a_length_that_was_not_in_training_is_asked_about_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Capped and uncapped teachers of two and three residues; the fourth is new to their field."""
    name = "ACE-ALA-GLY-NME"
    flow = KernelFlow(tmp_path / "run", f"{name}_zero_shot")
    monkeypatch.setattr(MeanFreeVelocity, "forward", lambda _, z, t: flow.velocity(z, t))
    result = run_job(
        "--output", tmp_path, "--name", "run", "--molecules", name, MIXED, "evaluate.num_exact=20"
    )
    assert result.exit_code == 0, result.output

    field = Emulator.load(tmp_path / "run" / "field" / "train_emulator" / "emulator.pt")
    bound, fine_tuned = (
        Emulator.load(tmp_path / "run" / f"{name}_{kind}" / "train_emulator" / "emulator.pt")
        for kind in ("zero_shot", "fine_tuned")
    )
    weights, same = (one.cartesian_field()[0].state_dict() for one in (field, bound))
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert fine_tuned.space == bound.space != field.space

    metrics = read_json(tmp_path / "run" / "fleet.json")["molecules"]
    zero_shot, fine_tuned_metrics = metrics[f"{name}_zero_shot"], metrics[f"{name}_fine_tuned"]
    effective = zero_shot["ess_fraction"] * zero_shot["ess_num_samples"]
    said = (
        "The field learned from chains of 2 and 3 residues, caps included, none of 4: "
        f"{effective:.1f} of 200 samples are effective."
    )
    assert zero_shot["verdict"]["reasons"][-1] == said
    assert f"{name}_zero_shot: {said}" in (tmp_path / "run" / "fleet.md").read_text()
    assert said in (tmp_path / "run" / f"{name}_zero_shot" / "report.html").read_text()
    assert "trained_lengths" not in fine_tuned_metrics
    file = tmp_path / "run" / f"{name}_zero_shot" / "generator.pt"
    fresh = evaluation_record(BoltzmannGenerator.load(file), 150, seed=5)
    assert fresh["verdict"]["reasons"][-1].endswith(" of 150 samples are effective.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--molecules", "GA,ALA-GLY"], "got ALA-GLY, also in transferable.training_molecules"),
        (["--molecules", "XAL-GLY"], "residues among"),
        (["--molecules", "ACE-ALA-NME"], "expected an uncapped dipeptide"),
        (["--molecules", "GGG"], "or train a field with transferable.features=peptide"),
        (["--molecules", "AC"], "the training molecules (ALA, GLY), got CYS; add a molecule that"),
        (["--molecules", "AG,ACE-GLY-NH2", MIXED], "(ACE, ALA, GLY, NME), got NH2"),
        (["--molecules", "DAL-GLY", MIXED], "got DAL; add a molecule that has them"),
        (["--molecules", "ALA-GLY-GLY,ACE-GLY-NME", MIXED], "got ACE-GLY-NME, also in"),
        (["--molecules", "GA", "transferable.training_molecules=[GG,XAL-GLY]"], "residues among"),
        (["--molecules", "GA", "energy.architecture=late_fusion"], "set energy.architecture=dist"),
        (["--molecules", "GA", "--stage", "generate"], "got --stage generate"),
        ([], "got no --molecules"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run_job("--output", tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.rglob("artifact.json"))


def test_a_dry_run_refuses_the_same(tmp_path: Path) -> None:
    result = run_job("--output", tmp_path, "--molecules", "AC", "--dry-run")
    assert result.exit_code == 2
    assert "got CYS" in result.stderr


def test_a_list_of_any_peptides_has_features_of_any_peptide(tmp_path: Path) -> None:
    result = run_job("--output", tmp_path, "--molecules", "GGA,ACE-ALA-NME", MIXED, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "27 atoms, model space of 78 euclidean + 0 circular" in result.stdout
    assert "22 atoms, model space of 63 euclidean + 0 circular" in result.stdout


def test_a_dry_run_names_the_cartesian_model(tmp_path: Path) -> None:
    result = run_job("--output", tmp_path, "--molecules", "GA", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "20 atoms, model space of 57 euclidean + 0 circular" in result.stdout


class Checked(Exception):
    """The nodes would be checked for this plan."""


def test_nodes_of_a_cluster_are_checked_for_the_cartesian_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(config: Config, output: Path, plan: Plan) -> None:
        raise Checked(config.target.sequence, plan.space.num_euclidean, plan.space.num_circular)

    monkeypatch.setattr("bnce_dist.distributed.launch.create_executor", lambda *_, **__: None)
    monkeypatch.setattr("bnce_dist.distributed.preflight.require_sound_nodes", check)
    command = ["--transferable", "--config", SMOKE, "--molecules", "GA", "--output", tmp_path]
    result = CliRunner().invoke(app, [str(part) for part in [*command, "cluster.executor=ray"]])
    assert result.exception.args == ("GA", 57, 0)
