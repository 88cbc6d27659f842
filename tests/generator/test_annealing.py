"""How samples of a model are annealed: what the settings ask for is what they go through."""

import pytest

from bnce_dist.core.annealing import MAX_LEVELS, num_levels_at_limit
from bnce_dist.generator.annealing import Annealer, AnnealingConfig, draw_pilot
from bnce_dist.generator.shipped import load_shipped
from bnce_dist.generator.target import Target


@pytest.mark.parametrize(
    ("settings", "fewest", "most"),
    [
        # The bound asks for more than there may be.
        ({"min_ess_fraction": 0.99999}, 90, 100),
        ({"min_ess_fraction": 0.99999, "max_levels": 130}, 115, 130),
        ({"min_ess_fraction": 0.95}, 2, 40),
        ({"min_ess_fraction": 0.99999, "num_levels": 7}, 7, 7),
    ],
)
def test_there_are_as_many_levels_as_the_settings_say(
    settings: dict[str, float], fewest: int, most: int
) -> None:
    generator = load_shipped("ACE-ALA-NME")
    annealer = Annealer.of(generator.density, Target.from_config(generator.target_config))
    config = AnnealingConfig.model_validate({"num_leapfrog": 1, "num_pilot": 20} | settings)
    schedule = annealer.tune(draw_pilot(generator.emulator, config, 1), config, 1)
    assert fewest <= schedule.num_levels <= most
    assert schedule.num_leapfrog == 1
    # Which costs weight where it stands in the way, and is counted.
    limit = config.max_levels or MAX_LEVELS
    at_limit = num_levels_at_limit(schedule.fractions, limit)
    assert (at_limit > limit / 2) == (config.num_levels is None and most >= 100)


def test_a_run_of_before_there_was_a_most_of_levels_keeps_its_key() -> None:
    assert "max_levels" not in AnnealingConfig().model_dump(mode="json")
    assert AnnealingConfig(max_levels=250).model_dump(mode="json")["max_levels"] == 250
