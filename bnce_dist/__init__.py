"""Learned likelihoods for Boltzmann generators, trained and run at scale."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnce_dist.api import (
        Simulation,
        evaluate_pretrained,
        learn_planar,
        simulate,
        sweep,
        train,
        train_fleet,
        train_transferable,
    )
    from bnce_dist.chem.molecule import Molecule
    from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
    from bnce_dist.generator.ensemble import Ensemble
    from bnce_dist.generator.shared_generator import SharedGenerator

# Both would send how they are used to their makers, and have to be told before they are imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.1.0"
__all__ = [
    "BoltzmannGenerator",
    "Ensemble",
    "Molecule",
    "SharedGenerator",
    "Simulation",
    "evaluate_pretrained",
    "learn_planar",
    "simulate",
    "sweep",
    "train",
    "train_fleet",
    "train_transferable",
]

_MODULES = {
    "BoltzmannGenerator": "bnce_dist.generator.boltzmann_generator",
    "Ensemble": "bnce_dist.generator.ensemble",
    "Molecule": "bnce_dist.chem.molecule",
    "SharedGenerator": "bnce_dist.generator.shared_generator",
    "Simulation": "bnce_dist.api",
    "evaluate_pretrained": "bnce_dist.api",
    "learn_planar": "bnce_dist.api",
    "simulate": "bnce_dist.api",
    "sweep": "bnce_dist.api",
    "train": "bnce_dist.api",
    "train_fleet": "bnce_dist.api",
    "train_transferable": "bnce_dist.api",
}


def __getattr__(name: str) -> Any:
    """Import a name of the interface when it is first used: the package itself stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
