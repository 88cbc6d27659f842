"""The figures and the HTML report of a finished run or fleet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnce_dist.config.load import dotted_values, load_config
from bnce_dist.core.errors import InputError
from bnce_dist.core.free_energy import exact_populations
from bnce_dist.data.atomic import read_json
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.samples import FloatArray, Samples
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.results import Evaluation, load_evaluation
from bnce_dist.pipeline.simulated_energies import simulated_energies

REPORT_NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Draw the figures of a finished run again and write its HTML report.

    Args:
        folder: Of the run, or of a fleet, whose members' reports are left as they are.

    Returns: The report's path.
    Raises: InputError: no finished run or fleet is there.
    """
    if (folder / "fleet.json").exists():
        return write_fleet_page(folder, read_json(folder / "fleet.json")["molecules"])
    if not (folder / "metrics.json").is_file():
        raise InputError(
            f"folder {folder}",
            expected="a finished run or fleet",
            got="no metrics.json in it",
            remedy="name the folder of one, or let the run end: the same command goes on",
        )
    metrics = read_json(folder / "metrics.json")
    if "verdict" not in metrics:
        raise InputError(
            f"metrics of {folder}",
            expected="those of this version",
            got="older ones, without a verdict",
            remedy="run the command of the run again, which computes them anew",
        )
    run = RunFolder(folder)
    config = load_config(Config, run.config_path)
    target = Target.from_config(config.target)
    report_run(
        config,
        target,
        run,
        metrics,
        load_evaluation(run, target, config.other_temperatures_kelvin),
    )
    return folder / REPORT_NAME


def report_run(
    config: Config,
    target: Target,
    folder: RunFolder,
    metrics: Mapping[str, Any],
    evaluation: Evaluation,
) -> list[Path]:
    """Draw the figures of a finished run, write its HTML report, and return the figures.

    Args:
        config: Of the run.
        target: Of the run.
        folder: Of the run.
        metrics: Content of its ``metrics.json``.
        evaluation: What it ended with.
    """
    from bnce_dist.report.conformations import basins, structures
    from bnce_dist.report.figures import write_figures
    from bnce_dist.report.html import RunReport, write_run_report
    from bnce_dist.report.results import RunResults, reference_method

    settings, reference = dotted_values(config), evaluation.reference
    samples, exact = evaluation.samples, slice(evaluation.samples.num_random)
    named = ("delta_f", "delta_f_stderr", "delta_f_reference", "delta_f_reference_stderr")
    results = RunResults(
        phi=samples.phi,
        psi=samples.psi,
        log_weights=samples.log_weights if samples.has_weight else samples.log_weights_learned,
        tails=_tails(samples) if samples.has_weight else {},
        reduced_potential=samples.reduced_potential,
        reference=reference,
        simulated=simulated_energies(folder, config, target, reference).energies
        if reference
        else None,
        losses=evaluation.losses,
        log_density_exact=samples.log_density_exact[exact],
        log_density_learned=samples.log_density[exact],
        **{f"{name}_kT": metrics[f"{name}_kT"] for name in named},
        temperatures=metrics.get("temperatures", ()),
        clip_fraction=config.evaluate.clip_fraction,
        state=target.state,
        torsion_labels=target.molecule.torsion_labels,
        reference_method=reference_method(settings),
        seed=config.seed,
    )
    figures = write_figures(folder.path / "figures", results)
    shown: dict[str, Any] = {"conformations": []}
    if chosen := basins(results.phi, results.psi, results.log_weights):
        positions = evaluation.positions_nm([basin.sample for basin in chosen])
        shown = structures(target.molecule, results, chosen, positions)
    report = RunReport(
        name=folder.path.name,
        molecule=target.molecule.name,
        metrics=metrics,
        settings=settings,
        figures=figures,
        structures=shown,
    )
    write_run_report(folder.path / REPORT_NAME, report)
    return figures


def _tails(samples: Samples) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return what the verdict fits tails to, by the side of the state."""
    sides = exact_populations(
        samples.log_weights_learned,
        samples.log_weights_exact,
        samples.in_state,
        num_random=samples.num_random,
        inclusion=samples.inclusion,
    )
    return dict(zip(("State", "Rest"), sides, strict=True))


def write_fleet_page(folder: Path, molecules: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the report of a fleet, with links to those of its members.

    Args:
        folder: Of the fleet.
        molecules: What ``fleet.json`` says of every run.

    Returns: The report's path.
    """
    from bnce_dist.report.html import write_fleet_report

    failures = {name: run["error"] for name, run in molecules.items() if "error" in run}
    finished = {name: run for name, run in molecules.items() if name not in failures}
    figure = folder / "fleet.png" if finished else None
    return write_fleet_report(folder / REPORT_NAME, finished, failures, figure)
