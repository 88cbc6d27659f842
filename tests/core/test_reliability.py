"""Numbers of a verdict against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from bnce_dist.core.errors import InputError
from bnce_dist.core.reliability import deviation, forward_ess_fraction


@pytest.mark.parametrize("sd", [0.0, 0.5, 1.0])
def test_forward_ess_of_normal_log_weights(sd):
    """Normal log weights of standard deviation s give E_p[w] E_p[1/w] = exp(s^2)."""
    values = sd * np.random.default_rng(0).standard_normal(200_000) + 7.0
    ess = forward_ess_fraction(values, np.ones(len(values)))
    assert ess == pytest.approx(math.exp(-(sd**2)), rel=0.03)


def test_forward_ess_uses_the_frames_weights():
    x = 1.4 * np.random.default_rng(1).standard_normal(400_000)
    weights = np.exp(stats.norm.logpdf(x) - stats.norm(0, 1.4).logpdf(x))
    log_w = stats.norm.logpdf(x) - stats.norm(0, 1.2).logpdf(x)
    # E_p[w] = s^2 / sqrt(2 s^2 - 1) for p = N(0, 1), q = N(0, s^2).
    assert forward_ess_fraction(log_w, weights) == pytest.approx(math.sqrt(1.88) / 1.44, rel=0.01)


def test_forward_ess_sees_a_mode_the_emulator_lacks():
    log_w = np.concatenate([np.zeros(500), np.full(500, 12.0)])
    assert forward_ess_fraction(log_w, np.ones(1000)) < 1e-4
    assert math.isnan(forward_ess_fraction([0.0], [0.0]))
    with pytest.raises(InputError, match="forward check"):
        forward_ess_fraction([0.0, np.inf], [1.0, 1.0])


def test_deviation_is_in_combined_standard_errors():
    assert deviation(4.0, 0.3, 3.0, 0.4) == pytest.approx(2.0)
    assert deviation(1.0, 0.0, 1.0, 0.0) == 0.0
    assert deviation(1.0, 0.0, 2.0, 0.0) == math.inf
