"""A few hundred damaged inputs of every kind; the record holds ten thousand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_damaged_inputs_are_read_rightly_or_refused_in_one_line() -> None:
    command = [sys.executable, "benchmarks/hardness.py", "--count", "300", "--seed", "17"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["wrong"] == []
    assert done.returncode == 0
    assert record["num_inputs"] >= 300
    for name, counts in record["kinds"].items():
        assert counts.get("one line", 0) > 0, name
