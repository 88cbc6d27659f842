"""Packages that are installed, and packages that work."""

import functools
import importlib.util
import subprocess
import sys


def why_not_importable(module: str) -> str | None:
    """Return why a package cannot be imported; nothing if it can.

    A package may be there and yet not work: built for another version of torch, or without a
    library of the system. That is found out in another process, which it may also crash.

    Args:
        module: Its name.
    """
    return "none" if importlib.util.find_spec(module) is None else _import_elsewhere(module)


@functools.cache
def _import_elsewhere(module: str) -> str | None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"an import that ends with {done.returncode}"]
    return f"one that cannot be imported ({lines[-1][:200]})"
