"""What a reference simulation that was too short ends with."""

import math

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.stages.reference import require_finite

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
