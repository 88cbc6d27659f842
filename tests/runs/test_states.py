"""States of a finished run: its own free energy among them, files, and what is refused."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bnce_dist.cli.states import app
from bnce_dist.core.states import REST, state_free_energies
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.runs.profile import REFERENCE, REWEIGHTED
from bnce_dist.runs.states import States, states

LEFT, RIGHT = "not phi in [0, 2]", "phi in [0, 2]"


@pytest.fixture(scope="module")
def even_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with frames of the reference that all weigh the same."""
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("even") / "run"))
    frames = dict(np.load(folder / "simulate" / "reference" / "frames.npz"))
    frames["potential_log_weights"] = np.zeros_like(frames["potential_log_weights"])
    np.savez(folder / "simulate" / "reference" / "frames.npz", **frames)
    return folder


def phi_of_frames(run: Path) -> np.ndarray:
    """Return phi of the recorded positions, with replicas along the first axis."""
    shards = ShardedDataset.open(run / "simulate" / "umbrella")
    atoms = np.array([4, 6, 8, 14])
    c, n, ca, last = np.moveaxis(
        shards.load(["positions_nm"])["positions_nm"][..., atoms, :], -2, 0
    )
    m, k = np.cross(n - c, ca - n), np.cross(ca - n, last - ca)
    sine = np.linalg.norm(ca - n, axis=-1) * ((n - c) * k).sum(-1)
    return np.arctan2(sine, (m * k).sum(-1)).reshape(len(shards), -1)


def test_the_weight_of_a_state_is_that_of_the_runs_metrics(finished_run: Path) -> None:
    metrics = read_json(finished_run / "metrics.json")
    found = states(finished_run, {"left": LEFT}).ensembles[REWEIGHTED]
    assert found.weights[0] == pytest.approx(1 - metrics["weight_in_state"], rel=1e-6)
    assert found.evidence["left"].ess == pytest.approx(metrics["ess_exact_outside_state"])
    assert found.evidence["left"].hidden_kT == pytest.approx(metrics["hidden_outside_state_kT"])


def test_the_reference_counts_its_frames(even_run: Path) -> None:
    found = states(even_run, {"left": LEFT, "right": RIGHT}).ensembles[REFERENCE]
    phi = phi_of_frames(even_run)
    inside = (phi > 0) & (phi < 2)
    assert found.names == ("left", "right")
    assert found.weights[1] == pytest.approx(inside.mean())
    share = inside.mean(axis=1)
    expected = share.std(ddof=1) / math.sqrt(len(share)) / (inside.mean() * (1 - inside.mean()))
    # To first order in the scatter of the shares.
    assert found.difference_stderrs_kT[0, 1] == pytest.approx(expected, rel=0.5)


def test_the_command_prints_and_writes(even_run: Path, tmp_path: Path) -> None:
    near = "near=distance(1:O,3:N) in [0, 0.01]"
    arguments = [str(even_run), f"left={LEFT}", near, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "near           no number: no sample in it" in result.stdout
    assert "left - rest: " in result.stdout
    hidden = states(even_run, {"left": LEFT}).ensembles[REWEIGHTED].evidence["left"].hidden_kT
    said = "any weight" if hidden is None else f"{hidden:.2f} kT"
    assert f", may hide {said}" in result.stdout
    # Frames of the reference are no emulator's samples, whose weights have tails.
    assert ", may hide " not in result.stdout[result.stdout.index(f"\n{REFERENCE}") :]
    assert "Errors are of sampling alone" in result.stdout
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["conditions"] == {"left": LEFT, "near": "distance(1:O,3:N) in [0, 0.01]"}
    reference = record["ensembles"]["reference"]
    assert reference["names"] == ["left", REST]
    assert reference["evidence"]["near"]["fault"] == "no sample in it"
    covariance = np.array(reference["covariance_kT2"])
    assert covariance.shape == (2, 2)
    spread = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert reference["difference_stderrs_kT"][0][1] == pytest.approx(math.sqrt(spread))
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["State"] for row in rows[-3:]] == ["left", "near", REST]
    assert rows[-2]["Weight"] == ""
    assert rows[-3]["May hide [kT]"] == ""
    assert rows[0]["May hide [kT]"] == ("" if hidden is None else f"{hidden:.5g}")
    assert float(rows[-3]["Weight"]) == pytest.approx(reference["weights"][0], rel=1e-3)


def test_a_state_that_may_hide_any_weight_says_so() -> None:
    logs = np.log1p(np.random.default_rng(0).pareto(1 / 2, 300))
    exact = np.where(np.arange(300) % 10 == 0, logs, np.nan)
    inside = {"few": np.arange(300) < 150, "equal": np.arange(300) >= 200}
    weights = np.where(inside["equal"], 0.0, logs)
    exact[inside["equal"]] = 0.0
    found = state_free_energies(weights, exact, inside, num_random=300)
    few, equal, _ = list(States({}, {REWEIGHTED: found}).lines())[1:4]
    assert few.endswith("of 150, may hide any weight")
    assert equal.endswith("of 100, may hide 0.00 kT")


def test_without_a_path_the_files_lie_in_the_run(even_run: Path) -> None:
    result = CliRunner().invoke(app, [str(even_run), f"left={LEFT}"])
    assert result.exit_code == 0, result.output
    assert (even_run / "states_left.json").exists()
    assert (even_run / "states_left.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a=phj in [0, 2]"], "the nearest is phi"),
        (["a=phi in [0, 2"], "expected ']' at character 13, got the end"),
        (["a=(phi in [0, 2]"], "at character 15, got the end"),
        (["phi in [0, 2]"], "expected NAME=CONDITION"),
        (["a=phi in [0, 2]", "a=psi in [0, 2]"], "every name once"),
        (["rest=phi in [0, 2]"], "other than rest"),
        (["a/b=phi in [0, 2]"], "expected letters, digits"),
        (["a=phi in [0, 2]", "b=phi in [1, 3]"], "samples in both; move their edges"),
        (["a=angle(2:N,2:CA,2:C) in [2, 1]"], "expected the lower edge first"),
        (["a=distance(1:O,3:N) in [-1, 1]"], "expected edges of 0 or more [nm]"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    finished_run: Path, arguments: list[str], line: str
) -> None:
    result = CliRunner().invoke(app, [str(finished_run), *arguments])
    assert result.exit_code == 2
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_file_of_ones_own_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("mine")
    arguments = [str(tmp_path / "run"), f"left={LEFT}", "-o", str(own.with_suffix(""))]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "output file" in refused.stderr
    assert "give --overwrite" in refused.stderr
    # Then it is the run that is missing.
    allowed = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert "expected a finished run" in allowed.stderr
