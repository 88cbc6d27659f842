"""What a reference simulation that was too short ends with."""

import math
from types import SimpleNamespace

import pytest

from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.stages.reference import require_finite, run_reference

SUMMARY = {
    "delta_f_kT": 3.7,
    "converged": False,
    "reason": "run longer",
    "trend_p_value": 0.4,
    "block_delta_f_kT": [[3.6, 3.8], [3.5, 3.9]],
}


def test_an_estimate_with_all_its_numbers_is_fine() -> None:
    require_finite(SUMMARY)


@pytest.mark.parametrize(
    "change", [{"trend_p_value": math.nan}, {"block_delta_f_kT": [[3.6, math.inf], [3.5, 3.9]]}]
)
def test_an_undefined_number_is_named_with_the_remedy(change: dict) -> None:
    with pytest.raises(InputError, match=f"no number for {next(iter(change))}; raise reference"):
        require_finite(SUMMARY | change)


@pytest.mark.parametrize(
    "settings", [{"positions_interval_ps": 50.0}, {"num_blocks": 1000}, {"production_ps": 0.2}]
)
def test_a_simulation_that_records_too_little_is_refused_before_it_begins(settings: dict) -> None:
    config = SimpleNamespace(reference=ReferenceConfig(**settings))
    with pytest.raises(InputError, match=r"got \d+ recorded frames; raise it, or lower"):
        run_reference(SimpleNamespace(config=config))  # type: ignore[arg-type]
    ReferenceConfig().require_frames()
