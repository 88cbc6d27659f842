"""What a run waits for, said now and then."""

import sys
import time
from typing import Literal

import ray
from tqdm import tqdm

PATIENCE_SECONDS = 10.0
REPEAT_SECONDS = 60.0
_NAMES = {"CPU": "core", "GPU": "GPU"}


class Waiting:
    """Says which cores or GPUs are waited for: at first after ten seconds, then every minute.

    Args:
        label: Of the work that waits.
        kind: What each worker takes one of.
    """

    def __init__(self, label: str, kind: Literal["CPU", "GPU"]) -> None:
        self._label, self._kind = label, kind
        self._next = time.monotonic() + PATIENCE_SECONDS

    def look(self, num_missing: int) -> None:
        """Say what is waited for, if it is time and the cluster has too little of it.

        Args:
            num_missing: Workers that have not begun.
        """
        if not num_missing or time.monotonic() < self._next:
            return
        free = int(ray.available_resources().get(self._kind, 0))
        if free >= num_missing:  # they are on their way
            return
        self._next = time.monotonic() + REPEAT_SECONDS
        name = _NAMES[self._kind] + ("s" if num_missing > 1 else "")
        tqdm.write(f"{self._label}: waiting for {num_missing} {name}, {free} free", sys.stderr)
