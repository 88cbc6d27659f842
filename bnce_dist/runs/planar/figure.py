"""The figure of planar runs: densities of several objectives side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bnce_dist.core.random import generator
from bnce_dist.core.systems import grid, system_from_name
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.planar.density import PlanarDensity

if TYPE_CHECKING:
    from bnce_dist.report.planar import DensityRow

FIGURE = "densities.png"
CELLS_PER_SIDE = 200
NUM_SAMPLES = 2000


def write_figure(runs: Sequence[tuple[PlanarConfig, Path, dict[str, Any]]], folder: Path) -> None:
    """Draw the first recipe's and seed's densities of every system, objectives side by side."""
    # matplotlib takes a second to import, which neither --help nor an error should wait for.
    from bnce_dist.report.figures import save_figure
    from bnce_dist.report.planar import density_figure

    first = runs[0][0]
    shown: dict[str, dict[str, tuple[Path, float]]] = {}
    for config, run_folder, metrics in runs:
        if (config.recipe, config.seed) == (first.recipe, first.seed):
            drawn = shown.setdefault(config.system, {})
            drawn[config.objective] = (run_folder, metrics["kl_grid"])
    rows = [density_row(system, drawn) for system, drawn in shown.items()]
    save_figure(density_figure(rows), folder / FIGURE)


def density_row(system: str, runs: Mapping[str, tuple[Path, float]]) -> "DensityRow":
    """Return what the figure shows of a system.

    Args:
        system: Its name.
        runs: By objective, the folder of a finished run and its divergence [nats]. The samples
            are those of the last one.
    """
    from bnce_dist.report.planar import DensityRow

    true = system_from_name(system)
    points, _ = grid(true.half_width, CELLS_PER_SIDE)
    densities = {name: PlanarDensity.load(folder) for name, (folder, _) in runs.items()}
    learned = {name: one.log_density_up_to_constant(points) for name, one in densities.items()}
    *_, last = densities.values()
    return DensityRow(
        system=system,
        half_width=true.half_width,
        true=_on_grid(true.log_density(points)),
        learned={name: _on_grid(values) for name, values in learned.items()},
        divergences={name: divergence for name, (_, divergence) in runs.items()},
        samples=last.sample(NUM_SAMPLES, generator("figure")).double().numpy(),
    )


def _on_grid(values: Tensor) -> Any:
    return values.double().view(CELLS_PER_SIDE, CELLS_PER_SIDE).numpy()
