"""What MLflow loads a served generator with: ``mlflow.pyfunc.load_model`` calls `_load_pyfunc`."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.device import DEVICE_VARIABLE
from bnce_dist.core.errors import InputError
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.tracking.pyfunc import refusing

if TYPE_CHECKING:
    import pandas as pd

MAX_SAMPLES = 100_000
"""Drawn per request."""
MAX_ANNEALED = 2_000
"""Annealed per request: a hundred times the work."""
MAX_LEVELS = 100
"""Of an annealing."""
MAX_CONFORMATIONS = 10_000
"""Reweighted per request."""


@dataclass(frozen=True)
class ReweightingModel:
    """Reweights conformations.

    Args:
        generator: The trained pair.
    """

    generator: BoltzmannGenerator

    @refusing
    def predict(self, positions_nm: NDArray[np.float64]) -> dict[str, list[float | None]]:
        """Return the log density, the reduced potential and the log weight of conformations.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` each [nats, kT, nats]; None for the weight of a mirror image.
        Raises: RefusedRequest: too many, another number of atoms, not finite, or not in nm.
        """
        if len(positions_nm) > MAX_CONFORMATIONS:
            raise InputError(
                "inputs", expected=f"at most {MAX_CONFORMATIONS}", got=len(positions_nm),
                remedy="send them in several requests",
            )  # fmt: skip
        return _numbers(self.generator.evaluate(positions_nm))


@dataclass(frozen=True)
class SamplingModel:
    """Draws weighted conformations.

    Args:
        generator: The trained pair.
    """

    generator: BoltzmannGenerator

    @refusing
    def predict(self, request: "pd.DataFrame") -> dict[str, list[Any]]:
        """Return samples with the same numbers as `ReweightingModel`.

        Args:
            request: One row with ``num_samples`` and ``seed``, and perhaps ``num_levels``, through
                which the samples are annealed to the target.

        Raises: RefusedRequest: not one row, no number of samples that can be served, or a model
            that does not anneal.
        """
        if len(request) != 1:
            raise InputError(
                "request", expected="one row of num_samples and seed", got=f"{len(request)} rows",
                remedy="send one request after the other",
            )  # fmt: skip
        num_samples, seed = (int(request[name].iloc[0]) for name in ("num_samples", "seed"))
        annealing = _annealing(request)
        most = MAX_SAMPLES if annealing is None else MAX_ANNEALED
        if not 1 <= num_samples <= most:
            raise InputError(
                "num_samples", expected=f"1 to {most}", got=num_samples,
                remedy="ask for fewer, or use several seeds",
            )  # fmt: skip
        ensemble = self.generator.sample(num_samples, seed, annealing=annealing, progress=False)
        return {"positions_nm": ensemble.positions_nm.tolist(), **_numbers(ensemble)}


def _load_pyfunc(path: str, model_config: Mapping[str, str]) -> ReweightingModel | SamplingModel:
    """Return the model that MLflow serves, on the device that BNCE_DEVICE names, else the CPU.

    Args:
        path: The generator's file.
        model_config: ``task`` says which of the two it is.
    """
    generator = BoltzmannGenerator.load(Path(path), device=os.environ.get(DEVICE_VARIABLE, "cpu"))
    reweights = model_config["task"] in ("reweight", "weigh")  # version 0.1 said weigh
    return ReweightingModel(generator) if reweights else SamplingModel(generator)


def _annealing(request: "pd.DataFrame") -> AnnealingConfig | None:
    """Return what a request asks for; an absent or empty ``num_levels`` is none."""
    asked = request["num_levels"].iloc[0] if "num_levels" in request else None
    if asked is None or asked != asked:  # NaN is how a table says nothing
        return None
    if not 1 <= int(asked) <= MAX_LEVELS:
        raise InputError(
            "num_levels", expected=f"1 to {MAX_LEVELS}", got=int(asked),
            remedy="ask for fewer, or leave it out for no annealing",
        )  # fmt: skip
    return AnnealingConfig(num_levels=int(asked))


def _numbers(ensemble: Ensemble) -> dict[str, list[float | None]]:
    return {
        "log_density": _finite(ensemble.log_density),
        "reduced_potential": _finite(ensemble.reduced_potential),
        "log_weight": _finite(ensemble.log_weights),
    }


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    # JSON has no infinity.
    return [value if math.isfinite(value) else None for value in values.tolist()]
