"""Lines for people that are made of ``metrics.json``."""

from pathlib import Path

import numpy as np
import pytest

from bnce_dist.data.atomic import write_json
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.generator.folder import RunFolder
from bnce_dist.pipeline.results import energy_model_cost
from bnce_dist.pipeline.stages.evaluate import HeldOutSampler
from bnce_dist.pipeline.stages.generate import Sampler
from bnce_dist.pipeline.summary import break_even, estimate_rows, temperature_text

ROW = {
    "temperature_kelvin": 350.0,
    "delta_f_kT": 3.1,
    "delta_f_stderr_kT": 0.05,
    "delta_f_interval_kT": [2.98, 3.84],
    "delta_u_kj_mol": 9.0,
    "delta_u_stderr_kj_mol": 0.4,
    "delta_s_j_mol_kelvin": 2.0,
    "delta_s_stderr_j_mol_kelvin": 1.0,
    "ess_fraction": 0.4,
    "reliable": True,
}


def test_a_temperature_has_the_interval_that_its_verdict_is_of() -> None:
    text = temperature_text(ROW)
    assert text.startswith("3.10 +- 0.05 kT, 95 % interval [2.98, 3.84], energy 9.0 +- 0.4 kJ/mol")
    assert "UNRELIABLE" not in text
    assert temperature_text(ROW | {"reliable": False}).endswith(", UNRELIABLE")


def test_a_temperature_out_of_reach_has_none() -> None:
    assert temperature_text(ROW | {"delta_f_kT": None}).startswith("out of reach")


def write_dataset(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    metadata = DatasetMetadata("any", dict.fromkeys(arrays, "1"))
    write_shard(folder, 0, arrays, metadata)
    ShardedDataset.finish(folder, 1, metadata)


def test_the_break_even_compares_processor_times(tmp_path: Path) -> None:
    """However many workers shared the stages, whose wall times are a part of it."""
    folder = RunFolder(tmp_path)
    per_sample = {"exact_cpu_seconds_per_sample": 0.3, "learned_cpu_seconds_per_sample": 0.1}
    metrics = {"seconds": {"generate": 1.0, "train_energy": 2.0}, **per_sample}
    assert energy_model_cost(folder) == {"energy_model_cpu_seconds": 0.0}
    assert break_even(metrics).startswith("unknown")

    write_dataset(folder.stage("generate") / "samples", {"z": np.zeros(50)})
    write_dataset(folder.stage("evaluate") / "held_out", {"cpu_seconds": np.full(4, 0.2)})
    history = [{"cpu_seconds": 20.0}, {"cpu_seconds": 30.0}]
    write_json(folder.stage("train_energy") / "history.json", history)
    cost = energy_model_cost(folder)
    assert cost == {"energy_model_cpu_seconds": pytest.approx(60.0)}
    assert break_even(metrics | cost).startswith("300 samples: ")


def test_held_out_samples_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "__init__", lambda self: None)
    monkeypatch.setattr(Sampler, "__call__", lambda self, index: {"z": np.zeros((3, 2))})
    assert (HeldOutSampler()(0)["cpu_seconds"] >= 0).tolist() == [True] * 3


def test_estimates_that_there_are_not_are_none() -> None:
    metrics = {
        "delta_f_learned_kT": 3.9,
        "delta_f_learned_stderr_kT": 0.1,
        "delta_f_exact_kT": None,
        "delta_f_exact_stderr_kT": None,
        "log_density_num_samples": 20,
        "ess_fraction": 0.4,
        "ess_num_samples": 2000,
        "ess_fraction_clipped": 0.5,
        "clip_fraction": 0.002,
        "pareto_k_in_state": 0.3,
        "pareto_k_outside_state": 0.2,
    }
    assert estimate_rows(metrics)["exact likelihood"] == "none (n = 20)"
    one_step = {"delta_f_one_step_kT": None, "ess_fraction_one_step": None}
    rows = estimate_rows(metrics | one_step | {"annealing_num_levels": 8})
    assert rows["without annealing"] == "none (8 levels since)"
    cut = {"annealing_num_levels": 100, "annealing_num_levels_at_limit": 87}
    said = estimate_rows(metrics | one_step | cut)["without annealing"]
    assert said.startswith("none (100 levels, 87 of them longer than asked: max_levels")
