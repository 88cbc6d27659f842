"""What every benchmark record holds besides its numbers."""

import json
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bnce_dist.data.atomic import write_json
from bnce_dist.pipeline.provenance import commit, hardware

FOLDER = Path(__file__).parent / "results"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles to four digits."""
    lower, median, upper = statistics.quantiles(values, n=4)
    named = {"median": median, "lower_quartile": lower, "upper_quartile": upper}
    return {name: float(f"{value:.4g}") for name, value in named.items()}


def publish(name: str, numbers: dict[str, Any], packages: Sequence[str], *, write: bool) -> None:
    """Print one JSON line of the numbers with their provenance; write it too if asked."""
    record = {"benchmark": name, **numbers, **provenance(packages)}
    print(json.dumps(record))
    if write:
        write_json(FOLDER / f"{name}.json", record)


def provenance(packages: Sequence[str]) -> dict[str, Any]:
    """Return the hardware, the commit, the command and the versions a number belongs to."""
    return {
        "hardware": hardware(),
        "commit": commit(),
        "command": " ".join(["python", *sys.argv]),
        "versions": {package: version(package) for package in packages},
    }
