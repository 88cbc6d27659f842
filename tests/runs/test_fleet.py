"""Many molecules: what goes in, what comes out of those that work and those that do not."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bnce_dist.cli.main import app
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.generator.verdict import nothing_left
from bnce_dist.pipeline.config import Config, TrackingConfig
from bnce_dist.pipeline.executor import Executor, LocalExecutor
from bnce_dist.runs.fleet.members import Outcome, members_of
from bnce_dist.runs.fleet.run import _note, prepare_fleet, run_members
from bnce_dist.runs.fleet.table import fleet_record, fleet_table
from bnce_dist.runs.molecule import PreparedRun

UNTRACKED = Config(tracking=TrackingConfig(backend="none"))


def fake_run(run: PreparedRun, executor: Executor) -> dict[str, Any]:
    if run.config.target.sequence == "ET":
        raise InputError("ET", expected="luck", got="none", remedy="try again")
    return {"delta_f_kT": 1.0, "folder": run.folder.path.name}


def make_metrics(delta_f: float, reference: float, *, converged: bool = True) -> dict[str, Any]:
    return {
        "delta_f_kT": delta_f,
        "delta_f_stderr_kT": 0.05,
        "delta_f_learned_kT": delta_f - 0.3,
        "delta_f_interval_kT": [delta_f - 0.1, delta_f + 0.1],
        "delta_f_reference_kT": reference,
        "delta_f_reference_stderr_kT": 0.06,
        "delta_f_reference_source": "this run",
        "delta_f_reference_run_converged": converged,
        "energy_w2_kT": 0.5,
        "torsion_w2_rad": 0.3,
        "torsion_w2_baseline_rad": 0.1,
        "ess_fraction": 0.4,
        "pareto_k": 0.3,
        "num_mirrored": 11,
        "num_rejected": 7,
        "ess_num_samples": 100,
        "reliable": converged,
        "verdict": {"reliable": converged, "reasons": [], "advice": []},
        "seconds": {"simulate": 60.0, "evaluate": 30.0},
    }


@pytest.mark.parametrize(
    "content",
    ["AC\n# ours\n\nET\nACE-ALA-NME\n", ">one\nAC\n>two x\nE\nT\n>three\nACE-ALA-NME\n"],
)
def test_molecules_come_from_a_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "molecules.txt"
    path.write_text(content)
    members = members_of(str(path), UNTRACKED, tmp_path / "fleet")
    assert [member.name for member in members] == ["AC", "ET", "ACE-ALA-NME"]
    assert members[1].config.target.sequence == "ET"
    path.write_text("AC\nAC\n")
    with pytest.raises(InputError, match="different sequences"):
        members_of(str(path), UNTRACKED, tmp_path / "fleet")
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="a text file of sequences"):
        members_of(str(path), UNTRACKED, tmp_path / "fleet")


def test_a_failing_molecule_does_not_stop_the_others(tmp_path: Path) -> None:
    fleet = prepare_fleet(UNTRACKED, "AC, ET,GN", tmp_path, LocalExecutor())
    outcomes = run_members(fleet.runs, fake_run, LocalExecutor(), ["simulate"])
    assert [outcome.name for outcome in outcomes] == ["AC", "ET", "GN"]
    assert outcomes[0].metrics == {"delta_f_kT": 1.0, "folder": "AC"}
    assert outcomes[2].metrics == {"delta_f_kT": 1.0, "folder": "GN"}
    assert outcomes[1].metrics is None
    assert outcomes[1].error == "ET: expected luck, got none; try again"


def test_all_that_cannot_be_run_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare_fleet(UNTRACKED, "GG,XAL-GLY,ACE-PRO-NME", tmp_path, LocalExecutor())
    assert str(caught.value).startswith("--molecules: expected molecules that can be run, got 2 of")
    assert "XAL-GLY (" in str(caught.value)
    assert "ACE-PRO-NME (" in str(caught.value)
    with pytest.raises(InputError, match=r"^sequence 'XAL-GLY'"):
        prepare_fleet(UNTRACKED, "GG,XAL-GLY", tmp_path, LocalExecutor())


def test_many_members_are_counted_and_few_are_named() -> None:
    stages = ["simulate", "evaluate"]
    few = {"AC": stages, "ET": stages[:1], "GN": []}
    assert _note(few, stages) == "AC 2/2, ET 1/2, GN 0/2"
    many = {f"{name}{copy}": done for copy in range(5) for name, done in few.items()}
    assert _note(many, stages) == "5 of 15 ended, 5 on their way"


def test_the_largest_molecules_start_first(tmp_path: Path) -> None:
    started: list[str | None] = []

    def note(run: PreparedRun, executor: Executor) -> dict[str, Any]:
        started.append(run.config.target.sequence)
        return {"delta_f_kT": 1.0, "sequence": run.config.target.sequence}

    fleet = prepare_fleet(UNTRACKED, "GG,WW,AA", tmp_path, LocalExecutor())
    assert fleet.largest is fleet.runs["WW"]
    outcomes = run_members(fleet.runs, note, LocalExecutor(), ["simulate"])
    assert started == ["WW", "AA", "GG"]
    assert [outcome.metrics for outcome in outcomes] == [
        {"delta_f_kT": 1.0, "sequence": name} for name in ("GG", "WW", "AA")
    ]


def test_a_molecule_without_an_estimate_failed_for_the_reason_of_its_verdict(
    tmp_path: Path,
) -> None:
    def rejected(run: PreparedRun, executor: Executor) -> dict[str, Any]:
        return {"delta_f_kT": None, "verdict": nothing_left(200).as_record()}

    fleet = prepare_fleet(UNTRACKED, "AC", tmp_path, LocalExecutor())
    (outcome,) = run_members(fleet.runs, rejected, LocalExecutor(), ["simulate"])
    assert outcome.metrics is None
    assert outcome.error.startswith("All 200 samples are broken")


def test_members_differ_in_the_molecule_alone(tmp_path: Path) -> None:
    first, second = members_of("AC,ET", Config(seed=7), tmp_path)
    of_first = first.config.model_dump()
    of_second = second.config.model_dump()
    assert of_first["target"].pop("sequence") == "AC"
    assert of_second["target"].pop("sequence") == "ET"
    assert of_first == of_second == Config(seed=7).model_dump() | {"target": of_first["target"]}


@pytest.mark.parametrize(
    ("sequences", "fault"),
    [
        ("", "an empty one"),
        ("AC,,ET", "an empty one"),
        ("AC,GN,AC", "AC twice"),
        (",", "empty one"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path: Path, sequences: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"--molecules: expected different sequences.*{fault}"):
        members_of(sequences, Config(), tmp_path)


def test_files_without_molecules_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"empty\.txt', with none"):
        members_of(str(tmp_path / "empty.txt"), UNTRACKED, tmp_path)
    with pytest.raises(InputError, match=r"absent\.txt: expected a file, got nothing there"):
        members_of(str(tmp_path / "absent.txt"), UNTRACKED, tmp_path)


def test_the_table_says_what_failed_and_averages_the_rest() -> None:
    outcomes = [
        Outcome("AC", make_metrics(3.5, 3.7)),
        Outcome("ET", error="no luck"),
        Outcome("GN", make_metrics(4.6, 4.5, converged=False)),
    ]
    summary = fleet_record(outcomes)["summary"]
    assert summary["abs_error_mean_kT"] == pytest.approx((0.2 + 0.1) / 2)
    assert summary["abs_error_max_kT"] == pytest.approx(0.2)
    assert summary["num_finished"] == 2
    lines = fleet_table(outcomes).splitlines()
    assert lines[-1] == "ET: FAILED: no luck"
    ac, gn = lines[2:4]
    assert "3.50 +- 0.05" in ac
    assert "-0.20" in ac
    assert "3.66" in ac  # the published simulation
    assert "not converged" not in ac
    assert "4.50 +- 0.06 (not converged)" in gn
    assert "| reliable |" in ac
    assert "| UNRELIABLE |" in gn
    assert summary["num_reliable"] == 1


def test_variants_of_a_molecule_have_rows_and_means_of_their_own() -> None:
    outcomes = [
        Outcome("AC_zero_shot", make_metrics(3.5, 3.7), variant="zero_shot"),
        Outcome("AC_fine_tuned", make_metrics(3.6, 3.7), variant="fine_tuned"),
        Outcome("ET_zero_shot", error="no luck", variant="zero_shot"),
    ]
    record = fleet_record(outcomes)
    assert list(record["molecules"]) == ["AC_zero_shot", "AC_fine_tuned", "ET_zero_shot"]
    assert record["summary"]["zero_shot_abs_error_mean_kT"] == pytest.approx(0.2)
    assert record["summary"]["fine_tuned_abs_error_mean_kT"] == pytest.approx(0.1)
    lines = fleet_table(outcomes).splitlines()
    for line in lines[2:4]:
        assert "| 3.66 | 0.09 |" in line  # published values of AC
        assert "| 11 | 7 of 100 |" in line
    assert lines[5].startswith("zero_shot: mean |error| of the energy model alone 0.500 kT")
    assert "with exact densities 0.200 kT" in lines[5]
    assert lines[-1] == "ET_zero_shot: FAILED: no luck"


@pytest.mark.parametrize("name", ["samples.npz", "unfinished"])
def test_what_is_no_finished_run_has_no_report(tmp_path: Path, name: str) -> None:
    """Nothing is to be deleted, least of all the samples that were named by mistake."""
    (tmp_path / "samples.npz").touch()
    (tmp_path / "unfinished").mkdir()
    result = CliRunner().invoke(app, ["report", str(tmp_path / name)])
    assert result.exit_code == 2
    assert f"{name}: expected a finished run or fleet, got no metrics.json" in result.output
    assert "delete" not in result.output


def test_a_fleet_without_results_has_a_report(tmp_path: Path) -> None:
    outcomes = [Outcome("AC", error="no luck"), Outcome("ET")]
    write_json(tmp_path / "fleet.json", fleet_record(outcomes))
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text()
    assert "Failed: no luck" in page
    assert "Stopped earlier" in page
    assert "<img" not in page


@pytest.mark.slow
def test_the_job_runs_a_fleet(run_job: Any, finished_run: Path, tmp_path: Path) -> None:
    # The finished run stands for one member, so that only its report is made again.
    shutil.copytree(finished_run, tmp_path / "fleet" / "ACE-ALA-NME")
    arguments = ["--output", tmp_path, "--name", "fleet", "--molecules", "ACE-ALA-NME,XX"]
    refused = run_job(*arguments)
    assert refused.exit_code == 2
    assert "'X'" in refused.stderr
    assert not (tmp_path / "fleet" / "fleet.json").exists()

    result = run_job(*arguments[:-1], "ACE-ALA-NME")
    assert result.exit_code == 0, result.output
    record = read_json(tmp_path / "fleet" / "fleet.json")
    expected = read_json(finished_run / "metrics.json")
    assert record["molecules"]["ACE-ALA-NME"]["delta_f_kT"] == expected["delta_f_kT"]
    assert math.isfinite(record["summary"]["energy_w2_mean_kT"])
    assert (tmp_path / "fleet" / "fleet.png").stat().st_size > 10_000
    assert "ACE-ALA-NME" in (tmp_path / "fleet" / "fleet.md").read_text()


def test_a_list_of_molecules_is_refused_where_files_say_which_it_is(tmp_path: Path) -> None:
    files = {"topology": "butane.xml", "coordinates": "butane.pdb", "sequence": None}
    target = UNTRACKED.target.model_copy(update=files)
    config = UNTRACKED.model_copy(update={"target": target})
    with pytest.raises(InputError, match=r"--molecules with target\.topology.*butane\.xml"):
        members_of("AC,ET", config, tmp_path)
    frames = UNTRACKED.dataset.model_copy(update={"trajectory": Path("mine.dcd")})
    config = UNTRACKED.model_copy(update={"dataset": frames})
    with pytest.raises(InputError, match=r"--molecules with dataset\.trajectory.*mine\.dcd"):
        members_of("AC,ET", config, tmp_path)


def test_a_dry_run_names_all_that_cannot_be_run() -> None:
    command = ["train", "--dry-run", "--molecules", "GG,XAL-GLY,ACE-PRO-NME"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "got 2 of 3 that cannot: XAL-GLY (" in result.stderr
    assert result.stdout == ""
