"""Whether the GPUs that this process sees are its own; `device` acts on it.

Apart from it, because importing torch takes seconds in every process of a cluster, and not all of
them compute with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_owned = ContextVar("_owned", default=True)


def owns_gpus() -> bool:
    """Return whether this process may compute on the GPUs that it sees."""
    return _owned.get()


@contextmanager
def without_gpu() -> Iterator[None]:
    """Say that the GPUs which this process sees are not its own."""
    token = _owned.set(False)
    try:
        yield
    finally:
        _owned.reset(token)
