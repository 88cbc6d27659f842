"""Arrays that are freed make room for the next ones, instead of going back to the system."""

import ctypes
import os
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 256 * 1024**2
_LARGEST_KEPT_BYTES = 32 * 1024**2  # glibc takes no more


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, where its allocator is that of glibc.

    By default glibc gives larger arrays back to the system when they are freed, and then meets a
    page fault for every 4 kB of the next ones: a tenth to a fifth of the time of eager torch with
    arrays of some hundred kB, more in threads. Programs call this, libraries must not. Settings
    of the user (``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``) win.
    """
    chosen = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"))
    if chosen or not sys.platform.startswith("linux"):
        return
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
