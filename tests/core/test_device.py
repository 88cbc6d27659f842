import pytest
import torch

from bnce_dist.core.device import device_from_name, worker_device
from bnce_dist.core.errors import InputError
from bnce_dist.core.ownership import without_gpu


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_from_name("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"device: expected cpu, or a GPU.*got tpu9"):
        device_from_name("tpu9")
    with pytest.raises(InputError, match="got mps, whose numbers have 32 bits"):
        device_from_name("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="got cuda, of which this process sees 0; use cpu"):
        device_from_name("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_from_name("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"got cuda:2, of which .* 2; use one of cuda:0 to cuda:1"):
        device_from_name("cuda:2")


def test_a_worker_takes_its_gpu_if_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_gpu, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert worker_device() == torch.device(expected)
    with without_gpu():
        assert worker_device() == torch.device("cpu")
    assert worker_device() == torch.device("cuda")
