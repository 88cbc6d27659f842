"""What MLflow loads a served generator with: ``mlflow.pyfunc.load_model`` calls `_load_pyfunc`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.errors import InputError
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.tracking.pyfunc import refusing

if TYPE_CHECKING:
    import pandas as pd

MAX_SAMPLES = 100_000
"""Drawn per request."""
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
            request: One row with ``num_samples`` and ``seed``.

        Raises: RefusedRequest: not one row, or no number of samples that can be served.
        """
        if len(request) != 1:
            raise InputError(
                "request", expected="one row of num_samples and seed", got=f"{len(request)} rows",
                remedy="send one request after the other",
            )  # fmt: skip
        num_samples, seed = (int(request[name].iloc[0]) for name in ("num_samples", "seed"))
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise InputError(
                "num_samples", expected=f"1 to {MAX_SAMPLES}", got=num_samples,
                remedy="ask for fewer, or use several seeds",
            )  # fmt: skip
        ensemble = self.generator.sample(num_samples, seed, progress=False)
        return {"positions_nm": ensemble.positions_nm.tolist(), **_numbers(ensemble)}


def _load_pyfunc(path: str, model_config: Mapping[str, str]) -> ReweightingModel | SamplingModel:
    """Return the model that MLflow serves.

    Args:
        path: The generator's file.
        model_config: ``task`` says which of the two it is.
    """
    generator = BoltzmannGenerator.load(Path(path))
    reweights = model_config["task"] in ("reweight", "weigh")  # version 0.1 said weigh
    return ReweightingModel(generator) if reweights else SamplingModel(generator)


def _numbers(ensemble: Ensemble) -> dict[str, list[float | None]]:
    return {
        "log_density": _finite(ensemble.log_density),
        "reduced_potential": _finite(ensemble.reduced_potential),
        "log_weight": _finite(ensemble.log_weights),
    }


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    # JSON has no infinity.
    return [value if math.isfinite(value) else None for value in values.tolist()]
