import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from bnce_dist.cli.train import app

SMOKE = Path(__file__).parents[1] / "jobs" / "configs" / "smoke.yaml"

Job = Callable[..., Result]


CLUSTERS = ("tests/distributed/", "tests/pipeline/test_ray_job.py")
"""Where tests start Ray clusters or ranks that train together."""


def _file(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


class OneClusterAtATime(LoadScopeScheduling):
    """Deals the suite to processes file by file, but what starts clusters to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return "clusters" if _file(nodeid).startswith(CLUSTERS) else _file(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneClusterAtATime:
    """Make a run of several processes (``make test``) use the scheduler above."""
    return OneClusterAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the clusters, which last longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(CLUSTERS))


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
