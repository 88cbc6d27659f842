import platform
import subprocess
import sys

import pytest

from bnce_dist.distributed.memory import keep_freed_memory

STEPS = """
import resource, sys, threading
import torch
from bnce_dist.distributed.memory import keep_freed_memory

def step():
    return [torch.ones(256, 1024) for _ in range(150)]

def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)

if sys.argv[1] == "kept":
    assert keep_freed_memory()
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


def page_faults(mode: str) -> int:
    """Return how many a step in a thread has, which asks for 150 MB in 38,400 pages."""
    command = [sys.executable, "-c", STEPS, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other mallocs do otherwise")
def test_a_thread_gets_its_memory_once() -> None:
    assert page_faults("kept") < 1000 < page_faults("given back")


def test_another_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
