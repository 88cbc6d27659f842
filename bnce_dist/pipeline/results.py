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
from bnce_dist.generator.distances import (
    baseline_distance,
    distance_of_energies,
    distances_to_reference,
)
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.frame_metrics import bennett_metrics, unseen_metrics
from bnce_dist.generator.metrics import (
    annealing_metrics,
    evaluation_metrics,
    metrics_without_weights,
    one_step_metrics,
)
from bnce_dist.generator.samples import Samples
from bnce_dist.generator.target import Target
from bnce_dist.generator.thermodynamics import thermodynamics
from bnce_dist.generator.unseen import unseen, unseen_notes
from bnce_dist.generator.verdict import judge, nothing_left
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
