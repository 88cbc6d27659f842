"""Arrays that are freed make room for the next ones, instead of going back to the system."""

import ctypes
import os
import sys
from contextlib import suppress

# Of malloc.h. The threshold of mmap is the largest that malloc accepts, the pad the size of a heap.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_OPTIONS = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 256 << 20, _TOP_PAD: 64 << 20}


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, where its allocator is that of glibc.

    By default glibc gives larger arrays, and whole heaps of threads, back to the system when they
    are freed, and then meets a page fault for every 4 kB of the next ones: a tenth to a fifth of
    the time of eager torch with arrays of some hundred kB, more in threads. Programs call this,
    libraries must not. Settings of the user (``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``) win.
    """
    chosen = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
    if chosen or not sys.platform.startswith("linux"):
        return
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _OPTIONS.items():
            mallopt(option, value)
