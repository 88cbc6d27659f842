"""How much an exact density is worth, by which samples get one: on the samples of finished runs.

A run's first samples have exact densities, all of them; these are taken for a whole ensemble, whose
free energy they give. Some of them are then chosen, in another order each time, and the others'
exact densities are forgotten: at random alone; at random but for a fifth, which are the heaviest of
each side of the state; and half at random, half in proportion to their weights.

    python benchmarks/exact_choice.py runs/dipeptides/NY runs/dipeptides/IM --write
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import publish

from bnce_dist.core.exact_subset import select_for_exact
from bnce_dist.core.free_energy import log_weight_difference, stratified_log_weights
from bnce_dist.runs.finished import FinishedRun

NUMBERS = (600, 1_200, 2_400)
"""Exact densities that are spent."""
Array = NDArray[np.float64]
Chosen = tuple[NDArray[np.int64], dict[str, Any]]
"""Rows, and what the estimator has to know of how they were chosen."""


def at_random(learned: Array, inside: NDArray[np.bool_], number: int) -> Chosen:
    """Choose the first."""
    return np.arange(number), {"num_random": number}


def heaviest(learned: Array, inside: NDArray[np.bool_], number: int) -> Chosen:
    """Choose four fifths at random, and the heaviest of each side."""
    num_random = number - number // 5
    rows = [np.arange(num_random)]
    for side in (inside, ~inside):
        candidates = np.flatnonzero(side)
        rows.append(candidates[np.argsort(-learned[candidates])[: number // 10]])
    return np.unique(np.concatenate(rows)), {"num_random": num_random}


def by_weight(learned: Array, inside: NDArray[np.bool_], number: int) -> Chosen:
    """Choose half at random, half in proportion to their weights, as runs do."""
    half = number // 2
    subset = select_for_exact(learned, inside, num_random=half, num_weighted=number - half)
    return subset.rows, {"num_random": half, "inclusion": subset.inclusion}


WAYS: dict[str, Callable[[Array, NDArray[np.bool_], int], Chosen]] = {
    "at_random": at_random,
    "heaviest": heaviest,
    "by_weight": by_weight,
}


def measure(run: Path, repetitions: int) -> dict[str, Any]:
    """Return the root mean square errors of a run's free energy [kT], by number and way.

    Args:
        run: Its folder.
        repetitions: Orders of its samples.
    """
    samples = FinishedRun.open(run).evaluation.samples
    first = slice(samples.num_random)
    learned, exact = samples.log_weights_learned[first], samples.log_weights_exact[first]
    inside = samples.in_state[first]
    truth, rng = log_weight_difference(exact, inside), np.random.default_rng(0)
    errors: dict[int, dict[str, list[float]]] = {n: {way: [] for way in WAYS} for n in NUMBERS}
    for _ in range(repetitions):
        order = rng.permutation(len(exact))
        here = learned[order], inside[order]
        for number, ways in errors.items():
            for name, found in ways.items():
                rows, options = WAYS[name](*here, number)
                known = np.full(len(exact), np.nan)
                known[rows] = exact[order][rows]
                weights = stratified_log_weights(here[0], known, here[1], **options)
                found.append(log_weight_difference(weights, here[1]) - truth)
    error = samples.log_density[first] - samples.log_density_exact[first]
    return {
        "num_samples": len(exact),
        "num_in_state": int(inside.sum()),
        "log_density_error_sd_kT": float(error.std()),
        "rmse_kT": {
            str(number): {
                name: float(np.sqrt(np.mean(np.square(found)))) for name, found in w.items()
            }
            for number, w in errors.items()
        },
    }


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    repetitions: Annotated[int, typer.Option(min=2, help="Orders of their samples.")] = 400,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line, and write it if asked."""
    numbers = {run.name: measure(run, repetitions) for run in runs}
    publish("exact_choice", {"repetitions": repetitions, "runs": numbers}, ("numpy",), write=write)


if __name__ == "__main__":
    typer.run(main)
