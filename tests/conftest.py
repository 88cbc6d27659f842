import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bnce_dist.cli.train import app

SMOKE = Path(__file__).parents[1] / "jobs" / "configs" / "smoke.yaml"

Job = Callable[..., Result]


@pytest.fixture(scope="session")
def run_job() -> Job:
    """Runs ``jobs/train.py`` with the smoke configuration in this process, without Ray."""

    def run(*arguments: str | Path) -> Result:
        command = ["--config", SMOKE, *arguments, "cluster.executor=local"]
        return CliRunner().invoke(app, [os.fspath(part) for part in command])

    return run


@pytest.fixture(scope="session")
def finished_run(run_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; tests that change it work on a copy."""
    output = tmp_path_factory.mktemp("runs")
    result = run_job("--output", output, "--name", "done")
    assert result.exit_code == 0, result.output
    return output / "done"
