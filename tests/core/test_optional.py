from pathlib import Path

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.optional import why_not_importable
from bnce_dist.nn.neighbours import neighbour_list
from bnce_dist.pipeline.cluster import Parallelism
from bnce_dist.training.settings import TrainSettings

SETTINGS = TrainSettings(num_steps=1000)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package that is there and does what is written when it is imported."""

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)

    return write


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libcuda.so.1')", "cannot be imported (ImportError: libcuda.so.1)"),
        ("raise OSError('undefined symbol')", "OSError: undefined symbol"),
        ("import os; os.kill(os.getpid(), 11)", "an import that ends with -11"),
    ],
)
def test_a_package_that_is_there_and_does_not_work(install, code: str, reason: str) -> None:
    name = f"broken_{abs(hash(code))}"
    install(name, code)
    assert reason in why_not_importable(name)


def test_packages_that_work_and_packages_that_are_absent() -> None:
    assert why_not_importable("json") is None
    assert why_not_importable("no_such_package") == "none"


def test_a_broken_deepspeed_is_seen_before_anything_expensive(install) -> None:
    install("deepspeed", "raise ImportError('no torch of that version')")
    from bnce_dist.core.optional import _import_elsewhere

    _import_elsewhere.cache_clear()
    with pytest.raises(InputError, match=r"cannot be imported .*no torch of that version"):
        Parallelism(strategy="deepspeed").require_supported(torch.nn.Identity, SETTINGS)
    _import_elsewhere.cache_clear()


def test_a_broken_torch_cluster_is_done_without(install, caplog) -> None:
    positions, mask = torch.randn(1, 8, 3), torch.ones(1, 8)
    install("torch_cluster", "raise OSError('undefined symbol: _ZN2at')")
    receivers, _ = neighbour_list(positions, mask, 100.0)
    assert len(receivers) == 8 * 7
    assert "torch-cluster is not used: undefined symbol" in caplog.text
