"""Read a finished run: its numbers, and the arrays its figures are drawn from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.simulation.long_reference import find_long_reference
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.metrics import (
    ReferenceEnsemble,
    Samples,
    distances_to_reference,
    evaluation_metrics,
)
from bnce_dist.generator.target import Target
from bnce_dist.generator.verdict import Verdict, judge
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.stages.reference import Reference


def load_samples(evaluation: Path, target: Target) -> Samples:
    """Read the held-out samples that the stage ``evaluate`` left in its folder."""
    dataset = ShardedDataset.open(evaluation / "evaluated")
    evaluated = dataset.load(dataset.metadata.units.keys() - {"positions_nm"})
    exact = ShardedDataset.open(evaluation / "exact").load()
    return Samples.from_arrays(evaluated, exact, target.in_state(evaluated["phi"]))


def load_metrics(folder: RunFolder, config: Config, target: Target) -> dict[str, Any]:
    """Return the free energies of a finished run with their references and diagnostics."""
    samples = load_samples(folder.stage("evaluate"), target)
    metrics = evaluation_metrics(samples, config.evaluate, config.seed)
    reference = Reference.load(folder.stage("simulate"))
    own = reference.result
    long = find_long_reference(
        target.molecule.identity,
        config.target.force_field,
        config.target.temperature_kelvin,
        target.state_phi,
    )
    angles = ShardedDataset.open(folder.stage("evaluate") / "evaluated").load(["phi", "psi"])
    distances = distances_to_reference(
        samples, np.stack([angles["phi"], angles["psi"]], axis=1), _ensemble(reference), config.seed
    )
    verdict = judge(metrics)
    return {
        **metrics,
        "reliable": verdict.reliable,
        "verdict": verdict.as_record(),
        **distances,
        "delta_f_reference_kT": long.delta_f_kT if long else own["delta_f_kT"],
        "delta_f_reference_stderr_kT": long.stderr_kT if long else own["stderr_kT"],
        "delta_f_reference_source": long.source if long else "this run",
        "delta_f_reference_run_kT": own["delta_f_kT"],
        "delta_f_reference_run_stderr_kT": own["stderr_kT"],
        "delta_f_reference_run_converged": own["converged"],
        "delta_f_reference_run_reason": own["reason"],
    }


def load_positions(folder: RunFolder, samples: Sequence[int]) -> NDArray[np.float64]:
    """Return some of the evaluated held-out samples, ``(samples, atoms, 3)`` [nm]."""
    evaluated = ShardedDataset.open(folder.stage("evaluate") / "evaluated")
    return evaluated.take("positions_nm", np.array(samples, dtype=int)).astype(np.float64)


def _ensemble(reference: Reference) -> ReferenceEnsemble:
    return ReferenceEnsemble(
        np.stack([reference.phi, reference.psi], axis=1),
        np.exp(reference.log_weights),
        reference.reduced_potential,
        np.exp(reference.potential_log_weights),
    )


def load_figure_data(
    folder: RunFolder, config: Config, target: Target, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of ``report.results.RunResults``."""
    samples = load_samples(folder.stage("evaluate"), target)
    evaluated = ShardedDataset.open(folder.stage("evaluate") / "evaluated").load(["phi", "psi"])
    reference = Reference.load(folder.stage("simulate"))
    named = (
        "delta_f_kT",
        "delta_f_stderr_kT",
        "delta_f_reference_kT",
        "delta_f_reference_stderr_kT",
    )
    return {
        "phi": evaluated["phi"],
        "psi": evaluated["psi"],
        "log_weights": samples.log_weights,
        "reduced_potential": samples.reduced_potential,
        "reference_phi": reference.phi,
        "reference_psi": reference.psi,
        "reference_log_weights": reference.log_weights,
        "reference_replica": reference.replica,
        "md_energies_kT": reference.reduced_potential,
        "md_log_weights": reference.potential_log_weights,
        "losses": {
            "emulator": _history(folder, "train_emulator"),
            "energy": _history(folder, "train_energy"),
        },
        "log_density_exact": samples.log_density_exact[: samples.num_random],
        "log_density_learned": samples.log_density[: samples.num_random],
        **{name: metrics[name] for name in named},
        "clip_fraction": config.evaluate.clip_fraction,
        "state": target.state_phi,
        "seed": config.seed,
    }


def _history(folder: RunFolder, stage: str) -> dict[str, np.ndarray]:
    """Return the loss and its parts by step."""
    records = read_json(folder.stage(stage) / "history.json")
    names = records[0].keys() - {"learning_rate", "samples_per_second", "cpu_seconds"}
    return {name: np.array([record[name] for record in records]) for name in sorted(names)}


def summary(metrics: Mapping[str, Any], folder: Path) -> str:
    """Return a short table of a run's ``metrics.json``."""
    low, high = metrics["delta_f_interval_kT"]
    converged = "" if metrics["delta_f_reference_run_converged"] else ", NOT converged"
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in metrics["seconds"].items())
    verdict = Verdict.from_record(metrics["verdict"])
    rows = {
        "delta_f": f"{with_error(metrics, 'delta_f')}, 95 % interval [{low:.2f}, {high:.2f}]",
        "reference": f"{with_error(metrics, 'delta_f_reference')} "
        f"({metrics['delta_f_reference_source']})",
        "reference, this run": f"{with_error(metrics, 'delta_f_reference_run')}{converged}",
        "energy model alone": with_error(metrics, "delta_f_learned"),
        "exact likelihood": f"{with_error(metrics, 'delta_f_exact')} "
        f"(n = {metrics['log_density_num_samples']})",
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['ess_num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        "Pareto k": f"{metrics['pareto_k']:.2f} (reliable below 0.7)",
        "log density error": f"{metrics['log_density_rmse_kT']:.2f} kT, "
        f"{metrics['speedup_over_exact']:.0f} times faster than exact",
        "time": f"{sum(metrics['seconds'].values()):.0f} s ({stages})",
        "memory": f"{metrics['peak_memory_gb']:.1f} GB",
        "folder": str(folder),
    }
    lines = [f"{name:<20} {text}" for name, text in rows.items()]
    heads = ["verdict", *("" for _ in verdict.advice)]
    lines += [f"{head:<20} {text}" for head, text in zip(heads, verdict.lines(), strict=True)]
    return "\n".join(lines)


def with_error(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT``."""
    return f"{metrics[f'{name}_kT']:.2f} +- {metrics[f'{name}_stderr_kT']:.2f} kT"
