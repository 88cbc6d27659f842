"""Is this cluster fit for this run? Asked of every node before anything is computed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

from bnce_dist.core.errors import InputError
from bnce_dist.distributed.cluster import (
    available_workers,
    ensure_ray,
    num_gpus,
    require_some_gpus,
    require_workers,
)
from bnce_dist.distributed.nodes import NodeFacts, inspect_nodes, local_versions
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.plan import Plan

CLUSTER = "cluster"
# Ray moves no more objects to a disk that is fuller.
MAX_TEMP_USED = 0.95
# What `ray job submit` sends goes through the dashboard and stays in the head's memory.
MAX_UPLOAD_BYTES = min(DASHBOARD_CLIENT_MAX_SIZE, GCS_STORAGE_MAX_SIZE)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What.
        node: Where; ``"cluster"`` for what concerns all nodes together.
        found: What was found, in a few words.
        problem: Why the run cannot start like this, if it cannot.
    """

    name: str
    node: str
    found: str
    problem: InputError | None = None


@dataclass(frozen=True)
class Report:
    """The outcome of a preflight.

    Args:
        checks: Everything that was looked at.
    """

    checks: tuple[Check, ...]

    @property
    def problems(self) -> list[InputError]:
        """What has to be put right."""
        return [check.problem for check in self.checks if check.problem is not None]

    def table(self) -> str:
        """Return one line per node and one column per check, then one line per check of all."""
        nodes = dict.fromkeys(check.node for check in self.checks if check.node != CLUSTER)
        names = dict.fromkeys(check.name for check in self.checks if check.node != CLUSTER)
        cells = {(check.node, check.name): _cell(check) for check in self.checks}
        rows = [["node", *names]]
        rows += [[node, *(cells.get((node, name), "") for name in names)] for node in nodes]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"{c.name}: {_cell(c)}" for c in self.checks if c.node == CLUSTER]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "ok": not self.problems,
            "checks": [
                {
                    "name": check.name,
                    "node": check.node,
                    "found": check.found,
                    "problem": str(check.problem) if check.problem else None,
                }
                for check in self.checks
            ],
        }


def preflight(config: Config, output: Path, plan: Plan) -> Report:
    """Check the cluster against a run, in seconds.

    Args:
        config: Of the run.
        output: The folder of the runs, absolute, on storage that all nodes share.
        plan: Sizes of the run.

    Raises: InputError: the cluster cannot be reached.
    """
    ensure_ray()
    checks = list(cluster_checks(config, plan))
    deepspeed = config.cluster.strategy == "deepspeed"
    for node, facts in inspect_nodes(output, deepspeed=deepspeed).items():
        checks += node_checks(node, facts, config, output, plan.storage_bytes)
    return Report(tuple(checks))


def require_sound_nodes(config: Config, output: Path, plan: Plan) -> None:
    """Refuse a cluster of several nodes that would fail the run later; one node is this machine.

    Args:
        config: Of the run.
        output: The folder of the runs, absolute.
        plan: Sizes of the run.

    Raises: InputError: the first problem that `preflight` finds.
    """
    ensure_ray()
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        for problem in preflight(config, output, plan).problems:
            raise problem


def cluster_checks(config: Config, plan: Plan) -> Iterator[Check]:
    """Check what concerns the cluster as a whole."""
    cluster = config.cluster
    asked, each = cluster.num_workers, cluster.cpus_per_worker
    kind = "GPUs" if num_gpus(cluster) else "cores" if each == 1 else f"workers of {each} cores"
    found = f"{asked or 'all'} of {available_workers(cluster)} {kind}"
    yield Check("workers", CLUSTER, found, _problem(require_workers, asked or 1, cluster))
    if config.cluster.require_gpus:
        yield Check("GPUs", CLUSTER, str(num_gpus()), _problem(require_some_gpus))
    if plan.upload_bytes is not None:
        yield _check(
            "upload",
            CLUSTER,
            f"{plan.upload_bytes / 1e6:.1f} MB",
            plan.upload_bytes <= MAX_UPLOAD_BYTES,
            "upload of the working directory",
            expected=f"at most {MAX_UPLOAD_BYTES / 1e6:.0f} MB, which Ray takes",
            got=f"{plan.upload_bytes / 1e6:.0f} MB",
            remedy="name large files in .gitignore or in cluster/runtime_env.yaml",
        )


def node_checks(
    node: str, facts: NodeFacts | str, config: Config, output: Path, storage_bytes: int
) -> Iterator[Check]:
    """Check what one node said about itself.

    Args:
        node: Its name.
        facts: What it said, or why it said nothing.
        config: Of the run.
        output: The folder of the runs.
        storage_bytes: What the run will write there.
    """
    if isinstance(facts, str):
        yield _check(
            "answer",
            node,
            "none",
            False,
            f"node {node}",
            expected="an answer",
            got=facts,
            remedy="look at the node and at Ray's logs there, or take it out of the cluster",
        )
        return
    yield _versions_check(node, facts.versions)
    if config.cluster.strategy == "deepspeed":
        yield _check(
            "deepspeed",
            node,
            "there" if facts.has_deepspeed else "absent",
            facts.has_deepspeed,
            f"DeepSpeed on node {node}",
            expected="an installation, for cluster.strategy=deepspeed",
            got="none that can be imported",
            remedy="run make setup-deepspeed there, or choose another strategy",
        )
    yield _check(
        "GPUs",
        node,
        f"{facts.gpus_usable} of {facts.gpus_declared}",
        facts.gpus_usable >= facts.gpus_declared,
        f"GPUs of node {node}",
        expected=f"{facts.gpus_declared}, as many as Ray hands out there",
        got=f"{facts.gpus_usable} that torch can use",
        remedy="install the CUDA build of torch (rm -rf .venv && make setup TORCH=cuda) and the "
        "GPU driver, or start Ray there with --num-gpus=0",
    )
    yield _check(
        "temp",
        node,
        f"{facts.temp_used:.0%} used",
        facts.temp_used < MAX_TEMP_USED,
        f"temporary folder of node {node}",
        expected=f"less than {MAX_TEMP_USED:.0%} of the disk in use",
        got=f"{facts.temp_used:.0%}",
        remedy="free space there, or start Ray with --temp-dir on another disk",
    )
    yield from _storage_checks(node, facts, output, storage_bytes)


def _versions_check(node: str, versions: Mapping[str, str]) -> Check:
    wanted = local_versions()
    differing = [name for name in wanted if versions[name] != wanted[name]]
    return _check(
        "versions",
        node,
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        not differing,
        f"versions on node {node}",
        expected=", ".join(f"{name} {wanted[name]}" for name in differing),
        got=", ".join(f"{name} {versions[name]}" for name in differing),
        remedy="install the same environment everywhere: make setup, or cluster/Dockerfile",
    )


def _storage_checks(
    node: str, facts: NodeFacts, output: Path, storage_bytes: int
) -> Iterator[Check]:
    where = f"output folder {output} on node {node}"
    if facts.storage_error is not None:
        yield _check(
            "storage",
            node,
            "not writable",
            False,
            where,
            expected="a writable folder",
            got=facts.storage_error,
            remedy="mount shared storage there, or choose another --output",
        )
        return
    yield _check(
        "storage",
        node,
        "not shared" if facts.unseen else "shared",
        not facts.unseen,
        where,
        expected="the files that all other nodes write there",
        got=f"none of {', '.join(facts.unseen)}",
        remedy="mount the same storage at this path on every node, or choose another --output",
    )
    yield _check(
        "space",
        node,
        f"{facts.storage_free_bytes / 1e9:.1f} GB",
        facts.storage_free_bytes >= storage_bytes,
        where,
        expected=f"{storage_bytes / 1e6:.0f} MB of free space",
        got=f"{facts.storage_free_bytes / 1e6:.0f} MB",
        remedy="free space or choose another --output",
    )


def _check(
    name: str,
    node: str,
    found: str,
    passed: bool,
    what: str,
    *,
    expected: str,
    got: str,
    remedy: str,
) -> Check:
    problem = InputError(what, expected=expected, got=got, remedy=remedy)
    return Check(name, node, found, None if passed else problem)


def _problem(requirement: Callable[..., None], *arguments: Any) -> InputError | None:
    try:
        requirement(*arguments)
    except InputError as error:
        return error
    return None


def _cell(check: Check) -> str:
    return f"{check.found} (!)" if check.problem else check.found
