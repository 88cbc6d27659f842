import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from bnce_dist.cli.train import app

SMOKE = Path(__file__).parents[1] / "jobs" / "configs" / "smoke.yaml"

Job = Callable[..., Result]


CLUSTERS = ("tests/distributed/", "tests/pipeline/test_ray_job.py")
"""Where tests start Ray clusters."""

RANKS = "tests/distributed/test_parallel.py"
"""Where tests start ranks that train together without Ray."""

CLUSTER_TIMEOUT_SECONDS = 600
"""The slowest of their tests takes a minute."""


def _file(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


def _starts_clusters(nodeid: str) -> bool:
    return nodeid.startswith(CLUSTERS) and _file(nodeid) != RANKS


class OneClusterAtATime(LoadScopeScheduling):
    """Deals the suite to processes file by file, but what starts clusters to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return "clusters" if _starts_clusters(nodeid) else _file(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        """Count the test that ended its process as done, which else would end the next one too."""
        scopes = self.assigned_work[node].values()
        pending = ((scope, test) for scope in scopes for test, done in scope.items() if not done)
        scope, crashed = next(pending, ({}, None))
        if crashed is not None:
            scope[crashed] = True
        super().remove_node(node)
        return crashed


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneClusterAtATime:
    """Make a run of several processes (``make test``) use the scheduler above."""
    return OneClusterAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the clusters, which last longest, and let none of their tests last for ever."""
    items.sort(key=lambda item: not _starts_clusters(item.nodeid))
    for item in items:
        if item.nodeid.startswith(CLUSTERS):
            # ray.get swallows what the handler of a signal raises: only the end of the process,
            # and with it of its cluster, ends a test that hangs there.
            item.add_marker(pytest.mark.timeout(CLUSTER_TIMEOUT_SECONDS, method="thread"))


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
