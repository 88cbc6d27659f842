"""The arrays behind the figure of one system."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bnce_dist.core.random import generator
from bnce_dist.core.systems import grid, system_from_name
from bnce_dist.pipeline.toy.density import PlanarDensity

CELLS_PER_SIDE = 200
NUM_SAMPLES = 2000


def density_row(system: str, runs: Mapping[str, tuple[Path, float]]) -> dict[str, Any]:
    """Return what ``report.density2d.DensityRow`` shows of a system.

    Args:
        system: Its name.
        runs: By objective, the folder of a finished run and its divergence [nats]. The samples
            are those of the last one.
    """
    true = system_from_name(system)
    points, _ = grid(true.half_width, CELLS_PER_SIDE)
    densities = {name: PlanarDensity.load(folder) for name, (folder, _) in runs.items()}
    learned = {name: one.log_density_up_to_constant(points) for name, one in densities.items()}
    *_, last = densities.values()
    return {
        "system": system,
        "half_width": true.half_width,
        "true": _on_grid(true.log_density(points)),
        "learned": {name: _on_grid(values) for name, values in learned.items()},
        "divergences": {name: divergence for name, (_, divergence) in runs.items()},
        "samples": last.sample(NUM_SAMPLES, generator("figure")).double().numpy(),
    }


def _on_grid(values: Tensor) -> Any:
    return values.double().view(CELLS_PER_SIDE, CELLS_PER_SIDE).numpy()
