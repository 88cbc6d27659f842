"""What is asked of a molecule must be something it can do."""

import math

import numpy as np
import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.generator.target import Target, TargetConfig


def test_a_state_that_a_ring_excludes_is_refused_before_anything_is_simulated() -> None:
    with pytest.raises(InputError, match="the ring of ACE-PRO-NME") as refused:
        Target.from_config(TargetConfig(sequence="ACE-PRO-NME"))
    assert "\n" not in str(refused.value)
    # All of what proline can do is as bad: nothing would be left outside.
    with pytest.raises(InputError, match="ring"):
        Target.from_config(
            TargetConfig(sequence="ACE-PRO-NME", state_phi_min=-math.pi, state_phi_max=0.0)
        )


def test_a_state_within_reach_of_a_ring_and_any_state_without_one() -> None:
    split = TargetConfig(sequence="ACE-PRO-NME", state_phi_min=-2.0, state_phi_max=-1.2)
    target = Target.from_config(split)
    phi = np.radians([-90.0, -60.0])
    assert target.in_state(phi).tolist() == [True, False]
    # The ring is not about the first phi.
    assert Target.from_config(TargetConfig(sequence="ACE-ALA-PRO-NME")).state_phi == (0.0, 2.0)
