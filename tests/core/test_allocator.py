import platform
import subprocess
import sys

import pytest

from bnce_dist.core.allocator import keep_freed_memory

LOOP = """
import resource
import sys
import threading
import numpy as np

if sys.argv[1] == "kept":
    from bnce_dist.core.allocator import keep_freed_memory
    keep_freed_memory()

def work():
    for _ in range(200):
        arrays = [np.ones(60_000) for _ in range(8)]
        del arrays

def measure():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[2] == "thread":
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
else:
    measure()
"""


def page_faults(how: str, where: str, **environment: str) -> int:
    command = [sys.executable, "-c", LOOP, how, where]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_arrays_make_room_for_the_next_ones(where: str) -> None:
    assert page_faults("kept", where) < 1_000
    assert page_faults("plain", where) > 50_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_a_user_asks_of_the_allocator_stays() -> None:
    assert page_faults("kept", "main", MALLOC_TRIM_THRESHOLD_="131072") > 50_000


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory()
