import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from bnce_dist.cli.train import app

SMOKE = Path(__file__).parents[1] / "jobs" / "configs" / "smoke.yaml"

Job = Callable[..., Result]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell processes that share the suite what belongs together.

    A file stays in one process. So do all tests that start a cluster: two clusters would take
    the cores from each other. They come first because they last longest.
    """
    for item in items:
        has_cluster = item.get_closest_marker("ray") is not None
        item.add_marker(pytest.mark.xdist_group("ray" if has_cluster else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session")
def run_job() -> Job:
    """Runs ``jobs/train.py`` with the smoke configuration in this process, without Ray."""

    def run(*arguments: str | Path) -> Result:
        command = ["--config", SMOKE, *arguments, "cluster.executor=local"]
        return CliRunner().invoke(app, [os.fspath(part) for part in command])

    return run


@pytest.fixture(scope="session")
def finished_run(run_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; tests that change it work on a copy.

    Processes that share the suite share it: the first makes it, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "runs" / "done"
    with FileLock(shared / "finished_run.lock"):
        if not (folder / "metrics.json").exists():
            result = run_job("--output", folder.parent, "--name", folder.name)
            assert result.exit_code == 0, result.output
    return folder
