"""What every node of the cluster finds when it looks around: versions, GPUs, storage."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bnce_dist.core.optional import why_not_importable

ANSWER_SECONDS = 60
# A file written on one node may take a moment to show on another.
VISIBLE_SECONDS = 5


@dataclass(frozen=True)
class NodeFacts:
    """What one node says about itself.

    Args:
        versions: Of python, ray and torch.
        gpus_declared: How many Ray hands out there.
        gpus_usable: How many torch can use there.
        has_deepspeed: Whether DeepSpeed can be imported; untried where nobody asks for it.
        temp_used: Fraction of the disk in use where Ray keeps what memory cannot hold.
        storage_free_bytes: Free space in the output folder.
        storage_error: Why nothing could be written there.
        unseen: Nodes whose files in the output folder this node does not see.
    """

    versions: Mapping[str, str]
    gpus_declared: int
    gpus_usable: int
    has_deepspeed: bool
    temp_used: float
    storage_free_bytes: int = 0
    storage_error: str | None = None
    unseen: tuple[str, ...] = ()


def local_versions() -> dict[str, str]:
    """Return the versions that all nodes must have in common."""
    return {
        "python": platform.python_version(),
        "ray": ray.__version__,
        # CPU and CUDA builds of one version work together.
        "torch": importlib.metadata.version("torch").partition("+")[0],
    }


def inspect_nodes(output: Path, *, deepspeed: bool = False) -> dict[str, NodeFacts | str]:
    """Let every node look around, and see whether they share the output folder.

    Each writes a file there and reads those of the others; nothing is left behind.

    Args:
        output: The folder of the runs; created if need be.
        deepspeed: Whether to import DeepSpeed, which takes seconds.

    Returns: By the node's name, its facts, or why it gave none.
    """
    nodes = {_name(node): node for node in ray.nodes() if node["Alive"]}
    mailbox = output / f".preflight-{uuid.uuid4().hex}"
    probes = {name: _start_probe(name, node, mailbox, deepspeed) for name, node in nodes.items()}
    try:
        found = _collect({name: probe.look_around.remote() for name, probe in probes.items()})
        wrote = [name for name, facts in found.items() if _has_written(facts)]
        unseen = _collect({name: probes[name].unseen.remote(wrote) for name in wrote})
        for name, missing in unseen.items():
            found[name] = missing if isinstance(missing, str) else found[name] | missing
        return {
            name: facts if isinstance(facts, str) else NodeFacts(**facts)
            for name, facts in found.items()
        }
    finally:
        _collect({name: probe.clean_up.remote() for name, probe in probes.items()})
        for probe in probes.values():
            ray.kill(probe)


class NodeProbe:
    """Looks around on the node that it runs on.

    Args:
        name: Of the node.
        gpus_declared: GPUs that Ray hands out there.
        mailbox: Folder that the nodes leave files for each other in.
        temp: Folder that Ray keeps its own files in there.
        deepspeed: Whether to import DeepSpeed.
    """

    def __init__(
        self, name: str, gpus_declared: int, mailbox: Path, temp: Path, deepspeed: bool
    ) -> None:
        self._name, self._gpus_declared, self._mailbox = name, gpus_declared, mailbox
        self._temp, self._deepspeed = temp, deepspeed

    def look_around(self) -> dict[str, Any]:
        """Return the fields of `NodeFacts` that one node knows by itself, leaving its file."""
        temp = shutil.disk_usage(self._temp)
        facts: dict[str, Any] = {
            "versions": local_versions(),
            "gpus_declared": self._gpus_declared,
            "gpus_usable": _usable_gpus() if self._gpus_declared else 0,
            "has_deepspeed": self._deepspeed and why_not_importable("deepspeed") is None,
            "temp_used": temp.used / (temp.used + temp.free),
        }
        try:
            self._mailbox.mkdir(parents=True, exist_ok=True)
            (self._mailbox / self._file(self._name)).write_text(self._name)
            facts["storage_free_bytes"] = shutil.disk_usage(self._mailbox).free
        except OSError as error:
            facts["storage_error"] = error.strerror or str(error)
        return facts

    def unseen(self, names: list[str]) -> dict[str, Any]:
        """Return the field ``unseen`` of `NodeFacts`: who of ``names`` left no readable file."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while (missing := self._missing(names)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return {"unseen": missing}

    def clean_up(self) -> None:
        """Remove this node's file, and the folder if it was the last."""
        with contextlib.suppress(OSError):
            (self._mailbox / self._file(self._name)).unlink()
            self._mailbox.rmdir()

    def _missing(self, names: list[str]) -> tuple[str, ...]:
        return tuple(name for name in names if self._read(name) != name)

    def _read(self, name: str) -> str | None:
        try:
            return (self._mailbox / self._file(name)).read_text()
        except OSError:
            return None

    @staticmethod
    def _file(name: str) -> str:
        return name.replace("/", "_")


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"


def _start_probe(name: str, node: Mapping[str, Any], mailbox: Path, deepspeed: bool) -> Any:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    gpus = int(node["Resources"].get("GPU", 0))
    probe = ray.remote(NodeProbe).options(num_cpus=0, scheduling_strategy=here)
    temp = Path(node["RayletSocketName"]).parent  # of `ray start --temp-dir`, or RAY_TMPDIR
    return probe.remote(name, gpus, mailbox, temp, deepspeed)


def _collect(references: Mapping[str, Any]) -> dict[str, Any]:
    """Return every node's answer, or one line that says why there is none."""
    ray.wait([*references.values()], num_returns=len(references), timeout=ANSWER_SECONDS)
    answers: dict[str, Any] = {}
    for name, reference in references.items():
        try:
            answers[name] = ray.get(reference, timeout=0)
        except GetTimeoutError:
            answers[name] = f"no answer within {ANSWER_SECONDS} s"
        except RayError as error:
            answers[name] = str(error)
    return answers


def _has_written(facts: dict[str, Any] | str) -> bool:
    return not isinstance(facts, str) and "storage_error" not in facts


def _usable_gpus() -> int:
    # Ray hides the GPUs from a process that asks for none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
