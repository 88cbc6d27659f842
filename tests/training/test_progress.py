import io

import pytest

from bnce_dist.training import progress
from bnce_dist.training.progress import Progress, TrainingDisplay, listening, report_part
from bnce_dist.training.task import Record, TrainingTask


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds_with_rate_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("sample", total=50, unit="shard", done=10) as bar:
        for seconds in range(1, 21):
            clock[0] = 100.0 + seconds
            bar.update(10 + seconds, note="ess 0.4")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "sample: 20/50 [00:10<00:30,  1.00shard/s, ess 0.4]",
        "sample: 30/50 [00:20<00:20,  1.00shard/s, ess 0.4]",
    ]


def test_a_long_unit_shows_how_far_it_is_and_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("reference", total=2, unit="shard") as bar:
        with listening(bar.within(1)):
            for ps in range(1, 6):
                clock[0] += 5
                report_part(ps, 10, "ps")
        report_part(9, 10, "ps")  # nobody listens
    assert capsys.readouterr().err.splitlines() == [
        "reference: 1.2/2 [00:10<00:06,  8.33s/shard, 2 of 10 ps]",
        "reference: 1.4/2 [00:20<00:08, 14.29s/shard, 4 of 10 ps]",
    ]


def test_the_end_is_always_said(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("sample", total=2, unit="shard") as bar:
        bar.update(1)
        clock[0] += 4
        bar.update(2)
    assert capsys.readouterr().err.splitlines() == ["sample: 2/2 [00:04<00:00,  2.00s/shard]"]


def test_a_terminal_gets_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with Progress("sample", total=4, unit="shard") as bar:
        bar.update(1)
        bar.update(4, note="done")
    assert "sample: 100%" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_each_record_of_a_training_is_handed_on_once(task: TrainingTask) -> None:
    seen: list[Record] = []
    with TrainingDisplay(task, 10, seen.append) as display:
        for step in (5, 10, 15, 20, 15, 20, 25):  # a restart repeats steps
            display.show({"step": step, "loss": 1.0})
    assert [record["step"] for record in seen] == [15, 20, 25]
