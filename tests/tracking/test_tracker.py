import json
from pathlib import Path
from typing import Any

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.create import create_tracker
from bnce_dist.tracking.tracker import Tracker


def records(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "tracking.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def test_metrics_go_to_the_innermost_open_run(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.start_run("adp", {"seed": 1, "energy": {"num_negatives": 64}}, {"commit": "abc"})
    with tracker.stage("train_energy"):
        tracker.log_metrics({"loss": 0.25}, step=7)
    tracker.log_metrics({"delta_f_kT": 3.9})
    tracker.finish()

    parent, child = records(tmp_path, "start")
    assert parent["params"] == {"seed": "1", "energy.num_negatives": "64"}
    assert parent["tags"] == {"commit": "abc"}
    assert child["parent"] == parent["run"]
    in_stage, in_parent = records(tmp_path, "metrics")
    assert (in_stage["run"], in_stage["step"], in_stage["values"]) == (
        child["run"],
        7,
        {"loss": 0.25},
    )
    assert (in_parent["run"], in_parent["values"]) == (parent["run"], {"delta_f_kT": 3.9})
    assert [(end["run"], end["status"]) for end in records(tmp_path, "end")] == [
        (child["run"], "FINISHED"),
        (parent["run"], "FINISHED"),
    ]


@pytest.mark.parametrize(
    ("raised", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_stage_that_raises_is_marked_and_the_error_goes_on(
    tmp_path: Path, raised: type[BaseException], status: str
) -> None:
    tracker = Tracker(tmp_path)
    tracker.start_run("adp", {})
    with pytest.raises(raised), tracker.stage("simulate"):
        raise raised
    assert [end["status"] for end in records(tmp_path, "end")] == [status]


def test_a_second_tracker_continues_the_runs_of_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        tracker = Tracker(tmp_path)
        tracker.start_run("adp", {"seed": 1})
        with tracker.stage("simulate", {"num_chains": 4}):
            pass
    with tracker.stage("simulate", {"num_chains": 8}):
        pass
    first_parent, first_stage, second_parent, second_stage, other_stage = (
        start["run"] for start in records(tmp_path, "start")
    )
    assert first_parent == second_parent
    assert first_stage == second_stage
    assert other_stage not in {first_parent, first_stage}


def test_steps_repeated_after_a_restart_are_recorded_once(tmp_path: Path) -> None:
    for steps in (range(0, 4), range(2, 6)):
        tracker = Tracker(tmp_path)
        tracker.start_run("adp", {})
        for step in steps:
            tracker.log_metrics({"loss": 1.0 / (1 + step)}, step=step)
    assert [record["step"] for record in records(tmp_path, "metrics")] == [0, 1, 2, 3, 4, 5]
    tracker.log_metrics({"loss": 9.0}, step=5)
    assert records(tmp_path, "metrics")[-1]["values"] == {"loss": 9.0}


def test_non_finite_values_stay_valid_json(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.start_run("adp", {})
    tracker.log_metrics({"a": float("inf"), "b": float("nan")})
    (record,) = records(tmp_path, "metrics")
    assert float(record["values"]["a"]) == float("inf")
    assert record["values"]["b"] == "nan"


def test_a_line_torn_by_a_kill_is_cut_and_the_rest_kept(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.start_run("adp", {})
    with (tmp_path / "tracking.jsonl").open("a") as stream:
        stream.write('{"event": "metr')
    again = Tracker(tmp_path)
    again.start_run("adp", {})
    first, second = records(tmp_path, "start")
    assert first["run"] == second["run"]


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "tracking.jsonl").write_text("what?\n")
    with pytest.raises(InputError, match=r"tracking\.jsonl.*what"):
        Tracker(tmp_path)


def test_an_unwritable_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tracker = Tracker(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="writable folder"):
        tracker.start_run("adp", {})


def test_files_inside_the_run_folder_are_named_relative_to_it(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run")
    tracker.start_run("adp", {})
    tracker.log_figure(tmp_path / "run" / "figures" / "losses.png")
    tracker.log_model("energy", tmp_path / "elsewhere.pt")
    figure, model = records(tmp_path / "run", "artifact")
    assert (figure["path"], figure["folder"]) == ("figures/losses.png", "figures")
    assert (model["path"], model["folder"]) == (str(tmp_path / "elsewhere.pt"), "models/energy")


def test_logging_before_the_run_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="start_run"):
        Tracker(tmp_path).log_metrics({"loss": 1.0})


def test_the_null_tracker_leaves_no_trace(tmp_path: Path) -> None:
    tracker = create_tracker("none", tmp_path)
    tracker.start_run("adp", {})
    with tracker.stage("simulate"):
        tracker.log_metrics({"loss": 1.0})
    tracker.finish()
    assert tracker.unsent == 0
    assert list(tmp_path.iterdir()) == []
