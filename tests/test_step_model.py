"""What documents say about many GPUs is what the model with the measured terms gives."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed
from torch import nn

from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_flow_matching,
)

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STAGES = ("flow", "energy")


def record(name: str) -> Any:
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())


@pytest.fixture
def step_model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("step_model")


def test_the_record_is_what_the_measured_terms_give(step_model: ModuleType) -> None:
    made = record("step_model")
    expected = json.loads(json.dumps(step_model.numbers()))
    assert {key: made[key] for key in expected} == expected, "step_model.py --write makes it"


def measured_seconds(stage: str, way: str) -> float:
    scaling = record("scaling")
    batch = scaling["batch_size"] * (2 if way.startswith("weak") else 1)
    return float(batch / scaling[stage][way]["median"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("case", "way"), [("one", "strong_1"), ("strong_two", "strong_2"), ("weak_two", "weak_2")]
)
def test_measured_steps_are_predicted(
    step_model: ModuleType, stage: str, case: str, way: str
) -> None:
    predicted = step_model.checked(stage)[case]["predicted_ms"]
    assert predicted == pytest.approx(1e3 * measured_seconds(stage, way), rel=0.1)


@pytest.mark.parametrize("stage", STAGES)
def test_computing_and_adding_up_alone_would_not_predict_them(
    step_model: ModuleType, stage: str
) -> None:
    whole = step_model.here(stage, record("scaling"), "share_2")
    without = replace(whole, ray_seconds=0.0, spread=0.0, contention=1.0)
    assert without.step_seconds(2) < 0.85 * measured_seconds(stage, "strong_2")


@pytest.mark.parametrize("stage", STAGES)
def test_the_weights_that_are_added_up_are_those_of_the_model(
    step_model: ModuleType, stage: str
) -> None:
    weights = [weight for weight in objective(stage).parameters() if weight.requires_grad]
    assert record("scaling")[stage]["num_weights"] == sum(weight.numel() for weight in weights)
    # In the order in which DDP expects their gradients.
    buckets, _ = torch.distributed._compute_bucket_assignment_by_size(
        weights[::-1], [torch.distributed._DEFAULT_FIRST_BUCKET_BYTES, 25 * 2**20]
    )
    sizes = [sum(weights[::-1][index].numel() for index in bucket) for bucket in buckets]
    overlap = 1 - sizes[-1] / sum(sizes)
    assert step_model.DDP_OVERLAP[stage] == pytest.approx(overlap, abs=5e-4)


def objective(stage: str) -> nn.Module:
    space = Space(num_euclidean=55, num_circular=5)
    if stage == "energy":
        return build_energy_matching(EnergyConfig(), space)
    return build_flow_matching(EmulatorConfig(), space)


def test_the_slowest_of_many(step_model: ModuleType) -> None:
    assert step_model.expected_maximum(1) == pytest.approx(0, abs=1e-12)
    assert step_model.expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert step_model.expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi))
    drawn = torch.randn(20_000, 512, generator=torch.Generator().manual_seed(0))
    assert step_model.expected_maximum(512) == pytest.approx(drawn.amax(1).mean().item(), abs=0.02)


def ring_messages(num_workers: int) -> list[list[set[int]]]:
    """Pass chunks round a ring until every worker holds the sum of all.

    Returns: Whose part of chunk ``c`` worker ``w`` has, ``[w][c]``, after 2(N-1) messages each.
    """
    parts = [[{worker} for _ in range(num_workers)] for worker in range(num_workers)]
    for message in range(2 * (num_workers - 1)):
        # First the sums grow on their way, then the whole ones are copied.
        sent = [(worker, (worker - message) % num_workers) for worker in range(num_workers)]
        passed = [(worker, chunk, set(parts[worker][chunk])) for worker, chunk in sent]
        for worker, chunk, content in passed:
            parts[(worker + 1) % num_workers][chunk] |= content
    return parts


def test_a_ring_passes_as_many_messages_as_the_model_counts(step_model: ModuleType) -> None:
    everyone = set(range(5))
    assert all(chunk == everyone for worker in ring_messages(5) for chunk in worker)
    model = replace(step_model.StepModel.measured("flow"), num_weights=1000)
    parts = replace(model, bandwidth_bytes_per_second=1.0, latency_seconds=1.0).parts(5)
    assert parts["latency"] == 2 * (5 - 1)
    assert parts["bandwidth"] == pytest.approx(parts["latency"] * 4 * 1000 / 5)
    hidden = replace(model, overlap=1.0).parts(5)
    assert hidden["bandwidth"] == 0
    assert hidden["latency"] > 0, "the last bucket waits for the backward pass"
