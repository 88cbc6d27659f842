"""How long a data-parallel training step takes on many GPUs: measured terms and named assumptions.

    python benchmarks/step_model.py --write

Nothing is measured here. The terms come from the records of ``scaling.py`` and ``host_work.py``;
the record of this script holds what the model makes of them, for the documents.
"""

import json
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import typer
from record import FOLDER, publish
from scipy.special import ndtr
from scipy.stats import norm

BYTES_PER_WEIGHT = 4
STAGES = ("flow", "energy")
REPORT_INTERVAL = 5
"""Steps over which ``scaling.py`` takes a rate."""
QUARTILES_PER_SD = 2 * norm.ppf(0.75)
"""Between the quartiles of a normal distribution."""


def read(name: str) -> Any:
    """Return a record."""
    return json.loads((FOLDER / f"{name}.json").read_text())


@dataclass(frozen=True, kw_only=True)
class StepModel:
    r"""Every rank works on its share and waits for the slowest; then the gradient is added up.

    .. math:: t(N) = (1 + s\,m_N)\,(c\,t_c + t_d + t_u + t_R)
        + 2 \frac{N - 1}{N} (1 - f) \frac{4 P}{b} + 2 (N - 1)\, l

    with :math:`m_N` the mean of the largest of N standard normal numbers. The last bucket of the
    gradient is complete only with the backward pass: none of its latency is hidden.

    Args:
        num_weights: P, weights of the model.
        ray_seconds: t_R, what Ray Train adds to a rank's step [s]. Measured.
        spread: s, standard deviation of a rank's step over its mean, independent from step to step
            and rank to rank. Measured on cores that Ray's own processes share, so likely to be less
            on a machine with cores to spare.
        drawing_seconds: t_d, to draw a rank's part of the batch [s]. Measured, of the last of 512.
        updating_seconds: t_u, to clip and to move weights and average [s]. Measured on a CPU, which
            does the arithmetic too: on a GPU a bound.
        compute_seconds: t_c, the model on one rank's share [s]. An assumption.
        contention: c, by how much ranks that share a machine slow each other down. By assumption
            each has its own.
        overlap: f, the part of the gradient that is added up while the backward pass still runs.
            None, the worst case; `DDP_OVERLAP` has what DDP's buckets allow.
        bandwidth_bytes_per_second: b, of the slowest link of the ring. An assumption.
        latency_seconds: l, of one message between neighbours [s]. An assumption.
    """

    num_weights: int
    ray_seconds: float
    spread: float
    drawing_seconds: float
    updating_seconds: float
    compute_seconds: float = 0.020
    contention: float = 1.0
    overlap: float = 0.0
    bandwidth_bytes_per_second: float = 10e9
    latency_seconds: float = 10e-6

    @classmethod
    def measured(cls, stage: str) -> "StepModel":
        """Return the model of a stage with all that the records hold."""
        scaling, host = read("scaling"), read("host_work")[stage]
        return cls(
            num_weights=scaling[stage]["num_weights"],
            ray_seconds=ray_seconds(scaling),
            spread=spread(scaling),
            drawing_seconds=host["drawing"]["512"]["median"],
            updating_seconds=host["updating"]["median"],
        )

    def parts(self, num_workers: int) -> dict[str, float]:
        """Return what a step consists of [s]."""
        alone = {
            "computing": self.contention * self.compute_seconds,
            "drawing": self.drawing_seconds,
            "updating": self.updating_seconds,
            "ray": self.ray_seconds,
        }
        others = num_workers - 1
        sent = 2 * others / num_workers * self.num_weights * BYTES_PER_WEIGHT
        return alone | {
            "waiting": self.spread * expected_maximum(num_workers) * sum(alone.values()),
            "bandwidth": (1 - self.overlap) * sent / self.bandwidth_bytes_per_second,
            "latency": 2 * others * self.latency_seconds,
        }

    def step_seconds(self, num_workers: int) -> float:
        """Return the time of a step [s]."""
        return sum(self.parts(num_workers).values())

    def weak_efficiency(self, num_workers: int) -> float:
        """Return the throughput per worker at a constant batch per worker, relative to one."""
        return self.step_seconds(1) / self.step_seconds(num_workers)

    def busy_fraction(self, num_workers: int) -> float:
        """Return the part of a step in which the model computes."""
        return self.parts(num_workers)["computing"] / self.step_seconds(num_workers)


DDP_OVERLAP = {"flow": 0.488, "energy": 0.444}
"""The gradient before DDP's last bucket, over all of it: its first bucket ends at 1 MB, the next at
25 MB, and weights come in the reverse of their order."""


def expected_maximum(num_samples: int) -> float:
    """Return the mean of the largest of so many standard normal numbers."""
    x = np.linspace(-9, 9, 4001)
    density = num_samples * norm.pdf(x) * ndtr(x) ** (num_samples - 1)
    return float(np.trapezoid(x * density, x))


def ray_seconds(scaling: dict[str, Any]) -> float:
    """Return what Ray adds to a step of one worker [s]: one number, since it knows no models."""
    batch = scaling["batch_size"]
    ways = ("strong_1", "without_ray")
    ray, plain = (fmean(batch / scaling[s][way]["median"] for s in STAGES) for way in ways)
    return ray - plain


def spread(scaling: dict[str, Any]) -> float:
    """Return the relative standard deviation of a step of one worker.

    Rates are of several steps each; if steps are independent, one varies more by the root of that.
    """
    rates = [scaling[stage]["strong_1"] for stage in STAGES]
    quartiles = (
        (rate["upper_quartile"] - rate["lower_quartile"]) / rate["median"] for rate in rates
    )
    return fmean(quartiles) / QUARTILES_PER_SD * REPORT_INTERVAL**0.5


def contention(scaling: dict[str, Any]) -> float:
    """Return how much slower two processes that share this machine are: two actors and one.

    Of the energies: their rates vary by a few per cent, those of the generation by a third.
    """
    one, two = (scaling["energies"][f"actors_{count}"]["median"] for count in (1, 2))
    return 2 * one / two


def here(stage: str, scaling: dict[str, Any], way: str) -> StepModel:
    """Return the model of a step on the machine of the record, from a plain process's step.

    Args:
        stage: Which training.
        scaling: The record.
        way: The plain process with a rank's share of the samples. Its step draws and updates too.
    """
    measured, shares = scaling[stage], {"without_ray": 1, "share_2": 2}
    weights = measured["num_weights"]
    # Of two ranks each sends as much as there are weights.
    bandwidth = weights * BYTES_PER_WEIGHT / measured["all_reduce_seconds"]["2"]
    return StepModel(
        num_weights=weights,
        ray_seconds=ray_seconds(scaling),
        spread=spread(scaling),
        drawing_seconds=0.0,
        updating_seconds=0.0,
        compute_seconds=scaling["batch_size"] / shares[way] / measured[way]["median"],
        contention=contention(scaling),
        bandwidth_bytes_per_second=bandwidth,
        latency_seconds=0.0,  # measured together
    )


def checked(stage: str) -> dict[str, dict[str, float]]:
    """Return predicted beside measured times of steps of one and two workers."""
    scaling = read("scaling")
    batch, measured = scaling["batch_size"], scaling[stage]
    cases = {
        "one": (1, "without_ray", batch / measured["strong_1"]["median"]),
        "strong_two": (2, "share_2", batch / measured["strong_2"]["median"]),
        "weak_two": (2, "without_ray", 2 * batch / measured["weak_2"]["median"]),
    }
    rows = {}
    for name, (count, way, seconds) in cases.items():
        model = here(stage, scaling, way)
        alone = model if count > 1 else replace(model, contention=1.0)
        predicted = alone.step_seconds(count)
        rows[name] = {
            "predicted_ms": 1e3 * predicted,
            "measured_ms": 1e3 * seconds,
            "difference_percent": 1e2 * (predicted / seconds - 1),
        }
    return rows


def changed(model: StepModel, overlap: float, num_workers: int) -> dict[str, dict[str, float]]:
    """Return what the projection becomes with one thing changed at a time.

    Args:
        model: What is projected.
        overlap: What DDP's buckets allow.
        num_workers: How many GPUs.
    """
    others, rounds = num_workers - 1, (num_workers - 1).bit_length()
    ways = {
        "nothing": model,
        "alike": replace(model, spread=0.0),
        "tree": replace(model, latency_seconds=model.latency_seconds * rounds / others),
        "larger_batch": replace(model, compute_seconds=5 * model.compute_seconds),
        "no_host_work": replace(model, ray_seconds=0.0, drawing_seconds=0.0, updating_seconds=0.0),
        "overlap": replace(model, overlap=overlap),
    }
    return {
        name: {
            "efficiency": way.weak_efficiency(num_workers),
            "busy_fraction": way.busy_fraction(num_workers),
        }
        for name, way in ways.items()
    }


def projected(model: StepModel, num_workers: int) -> dict[str, Any]:
    """Return the efficiency, the parts of a step [ms] and which of them costs most."""
    parts = {name: 1e3 * seconds for name, seconds in model.parts(num_workers).items()}
    return {
        "efficiency": model.weak_efficiency(num_workers),
        "busy_fraction": model.busy_fraction(num_workers),
        "limit": max(parts.keys() - {"computing"}, key=lambda name: parts[name]),
        "parts_ms": parts,
    }


def numbers() -> dict[str, Any]:
    """Return all that documents say of the model."""
    counts = [2**k for k in range(3, 10)]
    content: dict[str, Any] = {"contention": contention(read("scaling"))}
    for stage, overlap in DDP_OVERLAP.items():
        model = StepModel.measured(stage)
        content[stage] = {
            "terms": asdict(model),
            "ddp_overlap": overlap,
            "checked": checked(stage),
            "projected": {str(count): projected(model, count) for count in counts},
            "changed": changed(model, overlap, counts[-1]),
        }
    return content


def main(
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Print one JSON line and write it if asked."""
    publish("step_model", numbers(), ["bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
