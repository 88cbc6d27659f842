"""The ablation table: systems, recipes and objectives side by side, beside the published one."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.executor import Executor, LocalExecutor
from bnce_dist.runs.planar.config import OBJECTIVES, PlanarConfig
from bnce_dist.runs.planar.figure import write_figure
from bnce_dist.runs.planar.run import run_planar

PUBLISHED: Mapping[tuple[str, str], float] = {
    ("gaussians8", "infonce"): 0.2395,
    ("gaussians8", "score"): 0.2199,
    ("gaussians8", "hybrid"): 0.0150,
    ("checkerboard", "infonce"): 3.8478,
    ("checkerboard", "hybrid"): 0.1987,
}
"""Forward divergence on the grid [nats]; arXiv:2507.00846."""
PUBLISHED_SYSTEMS = tuple(dict.fromkeys(system for system, _ in PUBLISHED))
AVERAGED = ("kl_grid", "kl_normalised", "log_z_error", "cpu_seconds", "steps")
# A mean further than this from the published value, and than three standard deviations, is marked.
MARKED_RATIO = 1.25


@dataclass(frozen=True)
class Finished:
    """What came of one run.

    Args:
        config: Of the run.
        folder: Of the run.
        metrics: What `run_planar` returned, if it did.
        error: Else what stopped it, in one line.
    """

    config: PlanarConfig
    folder: Path
    metrics: dict[str, Any] | None = None
    error: str = ""


def run_all(configs: Iterable[PlanarConfig], output: Path, executor: Executor) -> list[Finished]:
    """Run what is not finished yet, each run in one process; a failure stops no other run.

    Args:
        configs: Of the runs; their names differ.
        output: Folder of the runs' folders, absolute.
        executor: Spreads the runs over the cores.
    """
    work = [(config, output / config.name) for config in configs]
    outcomes = executor.map_jobs(_run, work, label="runs")
    return [
        Finished(*item, error=f"{type(outcome).__name__}: {outcome}")
        if isinstance(outcome, Exception)
        else outcome
        for item, outcome in zip(work, outcomes, strict=True)
    ]


def _run(work: tuple[PlanarConfig, Path], _: Executor) -> Finished:
    """Return the run's metrics, or its error while it is one line and no trace of a worker."""
    config, folder = work
    try:
        return Finished(config, folder, metrics=run_planar(config, folder, LocalExecutor()))
    except Exception as error:
        return Finished(config, folder, error=f"{type(error).__name__}: {error}")


def run_table(configs: Sequence[PlanarConfig], folder: Path, executor: Executor) -> list[Finished]:
    """Run what is missing beside the table's folder; leave table and figure of what is there.

    Args:
        configs: Of the runs.
        folder: Of the table: gets ``table.md``, ``table.json`` and the figure.
        executor: Does the runs.

    Raises: InputError: a run's folder holds another run.
    """
    for config in configs:
        RunFolder(folder.parent / config.name).require_same_run(config, "choose another --output")
    results = run_all(configs, folder.parent, executor)
    finished = [(one.config, one.folder, one.metrics) for one in results if one.metrics]
    lines = summarise(metrics for _, _, metrics in finished)
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(markdown(lines))
    content = {"lines": lines, "runs": [metrics for _, _, metrics in finished]}
    write_json(folder / "table.json", content)
    if finished:
        write_figure(finished, folder)
    return results


def summarise(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per system, recipe and objective, in order of first appearance.

    Args:
        runs: Metrics of finished runs.

    Returns: Plain dictionaries: ``mean`` and ``sd`` over seeds of every averaged metric (no
        ``sd`` of a single seed), the ``seeds``, and the ``published`` divergence or None.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["system"], run["recipe"], run["objective"]), []).append(run)
    return [
        {
            "system": system,
            "recipe": recipe,
            "objective": objective,
            "seeds": [run["seed"] for run in group],
            "published": PUBLISHED.get((system, objective)),
            **{name: _mean_and_sd([run[name] for run in group]) for name in AVERAGED},
        }
        for (system, recipe, objective), group in groups.items()
    ]


def _mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    spread = {"sd": statistics.stdev(values)} if len(values) > 1 else {}
    return {"mean": statistics.fmean(values), **spread}


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as Markdown, objectives side by side.

    Args:
        lines: What `summarise` returned.
    """
    cells = {(line["system"], line["recipe"], line["objective"]): line for line in lines}
    rows = dict.fromkeys((line["system"], line["recipe"]) for line in lines)
    grid_rows: list[list[str]] = []
    normalised_rows: list[list[str]] = []
    for system, recipe in sorted(rows, key=lambda row: _place(row, lines)):
        group = [cells.get((system, recipe, objective)) for objective in OBJECTIVES]
        if not any(row[0] == system for row in grid_rows) and system in PUBLISHED_SYSTEMS:
            grid_rows.append([system, "published", *_published(system), "", ""])
        cost, steps = (_joined(group, name) for name in ("cpu_seconds", "steps"))
        grid_rows.append([system, recipe, *(_divergence(line) for line in group), cost, steps])
        normalised_rows.append([system, recipe, *(_normalised(line) for line in group)])
    names = ["InfoNCE", "score", "hybrid"]
    parts = [
        "Forward KL divergence [nats], densities normalised on the grid:",
        _table(["system", "recipe", *names, "CPU-s", "steps"], grid_rows),
        "The same from the normalised read-out as it is, and its log Z:",
        _table(["system", "recipe", *names], normalised_rows),
        *_notes(lines),
    ]
    return "\n\n".join(parts) + "\n"


def _place(row: tuple[str, str], lines: Sequence[Mapping[str, Any]]) -> int:
    """Return where a row's system appears first, so that its recipes stand together."""
    return next(place for place, line in enumerate(lines) if line["system"] == row[0])


def _published(system: str) -> list[str]:
    values = [PUBLISHED.get((system, objective)) for objective in OBJECTIVES]
    return ["-" if value is None else f"{value:.4f}" for value in values]


def _divergence(line: Mapping[str, Any] | None) -> str:
    return "-" if line is None else _plus_minus(line["kl_grid"]) + " *" * _is_marked(line)


def _normalised(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "-"
    return f"{_plus_minus(line['kl_normalised'])}, log Z {_plus_minus(line['log_z_error'])}"


def _joined(group: Sequence[Mapping[str, Any] | None], name: str) -> str:
    return " / ".join("-" if line is None else f"{line[name]['mean']:.0f}" for line in group)


def _plus_minus(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f}" + (f" +- {value['sd']:.4f}" if "sd" in value else "")


def _is_marked(line: Mapping[str, Any]) -> bool:
    """Return whether a run of the paper's recipe gives another value than was published."""
    published, here, recipe = line["published"], line["kl_grid"], line["recipe"]
    if published is None or not recipe.startswith("paper") or recipe.endswith("-quick"):
        return False
    ratio = max(here["mean"] / published, published / here["mean"])
    return ratio > MARKED_RATIO and abs(here["mean"] - published) > 3 * here.get("sd", 0.0)


def _notes(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    recipes = {line["recipe"] for line in lines}
    notes = {
        "CPU-s and steps stand for the three objectives in the order of the columns; an objective "
        "alone makes more steps where they are cheaper, so that all cost the same.": any(
            recipe.startswith("ours") for recipe in recipes
        ),
        "paper-reduced: mini-batches instead of full batches, and fewer steps; `--recipe paper` "
        "is the published set-up, which takes hours per run on a CPU.": any(
            recipe.startswith("paper-reduced") for recipe in recipes
        ),
        "quick: a fraction of the steps; to look at, not to judge by.": any(
            recipe.endswith("-quick") for recipe in recipes
        ),
        "\\*: not the published value, beyond three standard deviations and a quarter of it.": any(
            _is_marked(line) for line in lines
        ),
    }
    return [note for note, applies in notes.items() if applies]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = zip(header, *rows, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
