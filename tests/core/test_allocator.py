import platform
import subprocess
import sys

import pytest

LOOP = """
import resource
import sys
import numpy as np

if sys.argv[1] == "kept":
    from bnce_dist.core.allocator import keep_freed_memory
    keep_freed_memory()

def work():
    for _ in range(200):
        arrays = [np.ones(60_000) for _ in range(8)]
        del arrays

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str, **environment: str) -> int:
    command = [sys.executable, "-c", LOOP, how]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_arrays_make_room_for_the_next_ones() -> None:
    assert page_faults("kept") < 1_000
    assert page_faults("plain") > 50_000
    # What a user asks of the allocator stays.
    assert page_faults("kept", MALLOC_TRIM_THRESHOLD_="131072") > 50_000
