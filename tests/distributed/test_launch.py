"""What a run trains decides which strategies it may use."""

import pytest

from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.distributed.launch import require_trainable
from bnce_dist.generator.architectures import space_of
from bnce_dist.pipeline.config import Config

SHARDED = ("cluster.executor=ray", "cluster.strategy=sharded")
INTERNAL = ("transferable.internal=true",)
SHARED = (*INTERNAL, "shared_energy.enabled=true", "energy.architecture=tokens")


@pytest.mark.parametrize(
    ("kind", "section", "trains"),
    [
        ("molecule", "emulator", True),
        ("molecule", "energy", True),
        ("molecule", "transferable", False),
        ("internal", "emulator", False),
        ("internal", "transferable", True),
        ("internal", "energy", True),
        ("internal", "shared_energy", False),
        ("shared", "shared_energy", True),
        ("shared", "fine_tuning", True),
        ("shared", "energy", False),
        ("cartesian", "transferable", True),
        ("cartesian", "fine_tuning", True),
        ("cartesian", "emulator", False),
    ],
)
def test_a_strategy_is_refused_for_what_is_trained_and_nothing_else(
    kind: str, section: str, trains: bool
) -> None:
    """Muon needs whole matrices, which are cut up here."""
    arguments = {"internal": INTERNAL, "shared": SHARED}.get(kind, ())
    config = load_config(Config, None, [*SHARDED, *arguments, f"{section}.optimizer=muon"])
    space = space_of(
        Molecule.from_sequence("AA"),
        is_cartesian=kind == "cartesian",
        has_tokens=kind in ("internal", "shared"),
    )
    if trains:
        with pytest.raises(InputError, match="muon needs whole matrices"):
            require_trainable(config, "evaluate", space)
    else:
        require_trainable(config, "evaluate", space)
