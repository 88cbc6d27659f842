"""Read a finished run once: its samples, its reference, and the numbers made of them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.frame_metrics import bennett_metrics, unseen_metrics
from bnce_dist.generator.metrics import (
    annealing_metrics,
    baseline_distance,
    distance_of_energies,
    distances_to_reference,
    evaluation_metrics,
    metrics_without_weights,
    one_step_metrics,
)
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.target import Target
from bnce_dist.generator.thermodynamics import thermodynamics
from bnce_dist.generator.unseen import unseen, unseen_notes
from bnce_dist.generator.verdict import Verdict, judge, nothing_left
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.forward_check import forward_check
from bnce_dist.pipeline.simulated_energies import simulated_energies
from bnce_dist.pipeline.stages.annealing import ANNEALED, annealed_at, annealed_fractions
from bnce_dist.pipeline.stages.frames import EXACT_FRAMES

_NOT_COMPARED = (
    "Nothing was simulated to compare with: conformations that the emulator lacks do not show."
)


@dataclass(frozen=True)
class Evaluation:
    """What a run ends with: held-out samples, and the reference they are compared with.

    Args:
        folder: Of the run.
        samples: Everything about the samples but their positions: annealed, or as drawn.
        drawn: The same before they were annealed.
        temperatures: The same annealed to other temperatures, by the temperature [K].
        moves: What annealing did, as of `annealing_metrics`; None if it was not asked for.
        reference: The in-run reference; None if there is none.
        frames: Some of its frames with their exact densities; None if they have none.
        losses: Of the two trainings, by ``"emulator"`` and ``"energy"``: the loss and its parts by
            step.
        dataset: The samples with their positions.
    """

    folder: RunFolder
    samples: Samples
    drawn: Samples
    temperatures: Mapping[float, Samples]
    moves: Mapping[str, np.ndarray] | None
    reference: Reference | None
    frames: Mapping[str, np.ndarray] | None
    losses: Mapping[str, Mapping[str, np.ndarray]]
    dataset: ShardedDataset

    def positions_nm(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Return some of the samples, ``(rows, atoms, 3)`` [nm]."""
        return self.dataset.take("positions_nm", np.array(rows, dtype=int)).astype(np.float64)


def load_evaluation(
    folder: RunFolder, target: Target, temperatures_kelvin: Sequence[float] = ()
) -> Evaluation:
    """Read what a finished run left in its folder.

    Args:
        folder: Of the run.
        target: Of the run.
        temperatures_kelvin: Others that it was asked for [K].

    Raises: InputError: a stage is unfinished, or a file of it was changed.
    """
    stage = folder.stage("evaluate")
    drawn = HeldOut.read(stage, target)
    annealed, moves = None, None
    if (stage / ANNEALED).exists():
        annealed = drawn.annealed(ANNEALED)
        moves = {**annealed.arrays, "fractions": annealed_fractions(stage)}
    temperatures = {
        temperature: drawn.annealed(annealed_at(temperature)).samples
        for temperature in temperatures_kelvin
    }
    return Evaluation(
        folder=folder,
        samples=(annealed or drawn).samples,
        drawn=drawn.samples,
        temperatures=temperatures,
        moves=moves,
        reference=Reference.load_if_any(folder.stage("simulate")),
        frames=_load(stage / EXACT_FRAMES)[1] if (stage / EXACT_FRAMES).exists() else None,
        losses={
            "emulator": _history(folder, "train_emulator"),
            "energy": _history(folder, "train_energy"),
        },
        dataset=(annealed or drawn).dataset,
    )


@dataclass(frozen=True)
class HeldOut:
    """The held-out samples in one of the data sets that the stage ``evaluate`` left.

    Args:
        stage: Its folder.
        target: Says which of them are in the state.
        dataset: With their positions.
        arrays: All else in it.
        samples: Joined with what is known of them as they were drawn.
    """

    stage: Path
    target: Target
    dataset: ShardedDataset
    arrays: Mapping[str, np.ndarray]
    samples: Samples

    @classmethod
    def read(cls, stage: Path, target: Target) -> "HeldOut":
        """Read the samples as they were drawn.

        Raises: InputError: a data set is unfinished, or a file of it was changed.
        """
        dataset, arrays = _load(stage / "evaluated")
        exact = ShardedDataset.open(stage / "exact").load()
        in_state = target.state.contains(arrays["phi"], arrays["psi"])
        samples = Samples.from_arrays(arrays, exact, in_state)
        return cls(stage, target, dataset, arrays, samples)

    def annealed(self, name: str) -> "HeldOut":
        """Read the same samples where annealing brought them.

        Raises: InputError: as `read`.
        """
        dataset, arrays = _load(self.stage / name)
        in_state = self.target.state.contains(arrays["phi"], arrays["psi"])
        samples = self.samples.annealed(arrays, in_state)
        return replace(self, dataset=dataset, arrays=arrays, samples=samples)


def _load(folder: Path) -> tuple[ShardedDataset, dict[str, np.ndarray]]:
    """Return a data set of samples, and everything in it but where they are."""
    dataset = ShardedDataset.open(folder)
    return dataset, dataset.load(dataset.metadata.units.keys() - {"positions_nm", "z"})


def run_metrics(evaluation: Evaluation, config: Config, target: Target) -> dict[str, Any]:
    """Return the free energies of a finished run with their references and diagnostics.

    Where no sample has any weight, there is no free energy: it is None.

    Args:
        evaluation: What the run ended with.
        config: Of the run.
        target: Of the run.

    Raises: InputError: no sample with a weight on one side of the state.
    """
    samples = evaluation.samples
    metrics = (
        _weighted_metrics(evaluation, config, target)
        if samples.has_weight
        else metrics_without_weights(samples)
    )
    if evaluation.moves is not None:
        metrics |= annealing_metrics(evaluation.moves, config.evaluate.annealing)
    metrics |= _references(evaluation, config, target) | energy_model_cost(evaluation.folder)
    verdict = judge(metrics) if samples.has_weight else nothing_left(len(samples.valid))
    metrics |= unseen(evaluation.folder.stage("train_emulator"))
    verdict = verdict.with_notes(unseen_notes(metrics))
    if evaluation.reference is None:
        verdict = verdict.with_notes((_NOT_COMPARED,))
    metrics |= {"reliable": verdict.reliable, "verdict": verdict.as_record()}
    return metrics | _temperatures(evaluation, config)


def _references(evaluation: Evaluation, config: Config, target: Target) -> dict[str, Any]:
    """Return what the result should be, by the best simulation and by the run's; None for none."""
    long = target.long_reference(config.target)
    in_run = evaluation.reference.result if evaluation.reference else {}
    of_run = {
        "kT": in_run.get("delta_f_kT"),
        "stderr_kT": in_run.get("stderr_kT"),
        "converged": in_run.get("converged"),
    }
    # Only converged ones are shipped.
    best = of_run
    if long:
        best = {"kT": long.delta_f_kT, "stderr_kT": long.stderr_kT, "converged": True}
    return {
        **{f"delta_f_reference_{name}": value for name, value in best.items()},
        "delta_f_reference_source": long.source if long else "this run" if in_run else None,
        **{f"delta_f_reference_run_{name}": value for name, value in of_run.items()},
        "delta_f_reference_run_reason": in_run.get("reason", _NOT_COMPARED),
    }


def _temperatures(evaluation: Evaluation, config: Config) -> dict[str, Any]:
    """Return ``temperatures``, a list with the run's own among them; nothing if it is the only."""
    if not evaluation.temperatures:
        return {}
    settings, own = (config.evaluate, config.seed), config.target.temperature_kelvin
    # The run's own number is reported whatever it is worth; its verdict says that.
    rows = [thermodynamics(evaluation.samples, own, *settings, min_effective=0)]
    rows += [
        thermodynamics(samples, temperature, *settings)
        for temperature, samples in evaluation.temperatures.items()
        if temperature != own
    ]
    return {"temperatures": sorted(rows, key=lambda row: row["temperature_kelvin"])}


def _weighted_metrics(evaluation: Evaluation, config: Config, target: Target) -> dict[str, Any]:
    """Return what is made of the weights of the samples."""
    metrics = evaluation_metrics(evaluation.samples, config.evaluate, config.seed)
    if evaluation.moves is not None:
        metrics |= one_step_metrics(evaluation.drawn, config.evaluate, config.seed)
    if evaluation.reference is None:
        return metrics
    return metrics | _compared(evaluation, evaluation.reference, config, target)


def _compared(
    evaluation: Evaluation, reference: Reference, config: Config, target: Target
) -> dict[str, Any]:
    """Return how the samples differ from a simulation."""
    samples, metrics = evaluation.samples, dict[str, Any]()
    simulated = simulated_energies(evaluation.folder, config, target, reference)
    distances = partial(
        distances_to_reference, reference=reference, energies=simulated.energies, seed=config.seed
    )
    compared: dict[str, tuple[float | None, float | None]] = {
        "": distances(samples, weighted=True),
        "emulator_": distances(evaluation.drawn, weighted=False),
    }
    if evaluation.moves is not None:
        compared["one_step_"] = None, None
        with suppress(InputError):  # there may be no weights on one side before annealing
            compared["one_step_"] = distances(evaluation.drawn, weighted=True)
    for name, (energy_w2, torsion_w2) in compared.items():
        metrics |= {f"energy_w2_{name}kT": energy_w2, f"torsion_w2_{name}rad": torsion_w2}
    metrics["energy_w2_learned_kT"] = distance_of_energies(
        samples, samples.log_weights_learned, simulated.energies
    )
    metrics["energy_w2_baseline_kT"] = simulated.baseline_kT
    metrics["torsion_w2_baseline_rad"] = baseline_distance(
        reference, config.seed, len(samples.valid)
    )
    if evaluation.frames is None:
        return metrics | forward_check(evaluation.folder, evaluation.drawn, reference, target)
    metrics |= bennett_metrics(evaluation.drawn, evaluation.frames)
    return metrics | unseen_metrics(samples, evaluation.drawn, evaluation.frames)


def energy_model_cost(folder: RunFolder) -> dict[str, float]:
    """Return ``energy_model_cpu_seconds``, of training and of drawing its data [s].

    Drawing is taken to cost per sample what it did for held-out ones.

    Returns: Nothing where an earlier version recorded no CPU time. An energy model that was given
        cost nothing.
    """
    generated = folder.stage("generate") / "samples"
    if not generated.exists():
        return {"energy_model_cpu_seconds": 0.0}
    held_out = ShardedDataset.open(folder.stage("evaluate") / "held_out")
    records = read_json(folder.stage("train_energy") / "history.json")
    if "cpu_seconds" not in held_out.metadata.units or "cpu_seconds" not in records[0]:
        return {}
    per_sample = held_out.load(["cpu_seconds"])["cpu_seconds"].mean()
    drawing = float(per_sample) * ShardedDataset.open(generated).num_samples
    training = sum(record["cpu_seconds"] for record in records)
    return {"energy_model_cpu_seconds": drawing + training}


def _history(folder: RunFolder, stage: str) -> dict[str, np.ndarray]:
    """Return the loss and its parts by step."""
    records = read_json(folder.stage(stage) / "history.json")
    names = records[0].keys() - {"learning_rate", "samples_per_second", "cpu_seconds"}
    return {name: np.array([record[name] for record in records]) for name in sorted(names)}


def summary(metrics: Mapping[str, Any], folder: Path) -> str:
    """Return a short table of a run's ``metrics.json``."""
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in metrics["seconds"].items())
    verdict = Verdict.from_record(metrics["verdict"])
    rows = {
        "delta_f": _interval(metrics),
        **reference_rows(metrics),
        **(estimate_rows(metrics) if metrics["delta_f_kT"] is not None else {}),
        "log density error": f"{metrics['log_density_rmse_kT']:.2f} kT, "
        f"{metrics['speedup_over_exact']:.0f} times faster than exact for one more sample",
        "break-even": break_even(metrics),
        "time": f"{sum(metrics['seconds'].values()):.0f} s ({stages})",
        "memory": f"{metrics['peak_memory_gb']:.1f} GB",
        "folder": str(folder),
    }
    return table_of(rows, verdict)


def table_of(rows: Mapping[str, str], verdict: Verdict) -> str:
    """Return rows of names and texts for a terminal, a verdict below them."""
    lines = [f"{name:<20} {text}" for name, text in rows.items()]
    heads = ["verdict", *("" for _ in verdict.advice)]
    lines += [f"{head:<20} {text}" for head, text in zip(heads, verdict.lines(), strict=True)]
    return "\n".join(lines)


def reference_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return what the result should be, as far as it is known."""
    rows = {}
    if (source := metrics["delta_f_reference_source"]) is not None:
        rows["reference"] = f"{with_error(metrics, 'delta_f_reference')} ({source})"
    if metrics["delta_f_reference_run_kT"] is not None:
        converged = "" if metrics["delta_f_reference_run_converged"] else ", NOT converged"
        text = with_error(metrics, "delta_f_reference_run")
        rows["reference, this run"] = f"{text}{converged}"
    return rows or {"reference": "none"}


def _interval(metrics: Mapping[str, Any]) -> str:
    if metrics["delta_f_kT"] is None:
        return "none"
    return with_interval(metrics, "delta_f")


def estimate_rows(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return what there is to say of the weights and of what is made of them."""
    return {
        "energy model alone": with_error(metrics, "delta_f_learned"),
        "exact likelihood": f"{with_error(metrics, 'delta_f_exact')} "
        f"(n = {metrics['log_density_num_samples']})",
        **_bennett_row(metrics),
        "effective samples": f"{metrics['ess_fraction']:.3f} of {metrics['ess_num_samples']}, "
        f"{metrics['ess_fraction_clipped']:.3f} with {metrics['clip_fraction']:.1%} clipped",
        **_one_step_row(metrics),
        **{
            f"delta_f at {row['temperature_kelvin']:g} K": temperature_text(row)
            for row in metrics.get("temperatures", [])
        },
        "Pareto k": f"{metrics['pareto_k_in_state']:.2f} in the state, "
        f"{metrics['pareto_k_outside_state']:.2f} outside",
    }


def break_even(metrics: Mapping[str, Any]) -> str:
    """Return from how many samples on the energy model is cheaper than exact densities of all."""
    seconds = metrics.get("energy_model_cpu_seconds")
    if seconds is None:
        return "unknown: the run is older than the record of its energy model's CPU time"
    exact, learned = (metrics[f"{kind}_cpu_seconds_per_sample"] for kind in ("exact", "learned"))
    num_samples = seconds / max(exact - learned, 1e-12)
    return (
        f"{num_samples:,.0f} samples: the energy model and its data took {seconds:.0f} CPU-s, "
        f"an exact density {exact:.3f} CPU-s"
    )


def _bennett_row(metrics: Mapping[str, Any]) -> dict[str, str]:
    if "delta_f_bennett_kT" not in metrics:
        return {}
    return {"with MD frames": f"{with_error(metrics, 'delta_f_bennett')} (Bennett's ratio)"}


def _one_step_row(metrics: Mapping[str, Any]) -> dict[str, str]:
    if "annealing_num_levels" not in metrics:
        return {}
    levels = f"{metrics['annealing_num_levels']} levels"
    if at_limit := metrics.get("annealing_num_levels_at_limit"):
        levels += f", {at_limit} of them longer than asked: max_levels allows no more,"
    row = with_error(metrics, "delta_f_one_step")
    if (fraction := metrics["ess_fraction_one_step"]) is not None:
        row += f", effective samples {fraction:.3f}"
    return {"without annealing": f"{row} ({levels} since)"}


def temperature_text(row: Mapping[str, Any]) -> str:
    """Return one row of ``temperatures`` in ``metrics.json`` as a line for people."""
    effective = f"effective samples {row['ess_fraction']:.3f}"
    if row["delta_f_kT"] is None:
        return f"out of reach of the model, {effective}"
    reliable = "" if row["reliable"] else ", UNRELIABLE"
    return (
        f"{with_interval(row, 'delta_f')}, energy {row['delta_u_kj_mol']:.1f} +- "
        f"{row['delta_u_stderr_kj_mol']:.1f} kJ/mol, entropy {row['delta_s_j_mol_kelvin']:.0f} +- "
        f"{row['delta_s_stderr_j_mol_kelvin']:.0f} J/mol/K, {effective}{reliable}"
    )


def with_error(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT``, if it is known."""
    if metrics[f"{name}_kT"] is None:
        return "none"
    return f"{metrics[f'{name}_kT']:.2f} +- {metrics[f'{name}_stderr_kT']:.2f} kT"


def with_interval(metrics: Mapping[str, Any], name: str) -> str:
    """Return ``<name>_kT`` with ``<name>_stderr_kT`` and ``<name>_interval_kT``."""
    low, high = metrics[f"{name}_interval_kT"]
    return f"{with_error(metrics, name)}, 95 % interval [{low:.2f}, {high:.2f}]"
