"""What git says of the source, and of somebody else's folder around it."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from bnce_dist.pipeline import provenance
from bnce_dist.pipeline.plan import _upload_bytes


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of somebody's with one commit."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit = ["git", *identity, "commit", "--quiet", "--allow-empty", "--message", "theirs"]
    subprocess.run(commit, cwd=tmp_path, check=True)
    return tmp_path


def test_a_package_inside_a_repository_of_others_has_no_commit(repository: Path) -> None:
    installed = repository / "site-packages" / "provenance.py"
    installed.parent.mkdir()
    installed.write_text(Path(provenance.__file__).read_text())
    spec = importlib.util.spec_from_file_location("installed", installed)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.commit() is None


def test_a_file_of_any_name_is_uploaded(repository: Path) -> None:
    (repository / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"12345")
    assert _upload_bytes(repository) == 5
