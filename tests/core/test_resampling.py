"""Systematic resampling against what it promises."""

import math

import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.core.resampling import systematic_resampling


def test_each_sample_is_taken_its_share_up_to_rounding_and_exactly_on_average():
    log_weights = torch.randn(20, generator=generator("weights"), dtype=torch.float64)
    log_weights[[0, 7, 19]] = -math.inf
    expected = 50 * log_weights.softmax(0)
    random = generator("draws")
    counts = torch.stack([
        systematic_resampling(log_weights + 1000, 50, random).bincount(minlength=20)
        for _ in range(4000)
    ])  # fmt: skip
    assert ((counts - expected).abs() < 1).all()
    assert (counts[:, [0, 7, 19]] == 0).all()
    # A count is one of two neighbours: its standard deviation is at most one half.
    assert (counts.double().mean(0) - expected).abs().max() < 4 * 0.5 / math.sqrt(4000)


def test_equal_weights_keep_every_sample():
    chosen = systematic_resampling(torch.zeros(7), 7, generator(0))
    assert chosen.tolist() == list(range(7))


@pytest.mark.parametrize("bad", [[-math.inf, -math.inf], [0.0, math.nan], [0.0, math.inf]])
def test_weights_that_are_none_are_refused(bad):
    with pytest.raises(InputError, match="log_weights"):
        systematic_resampling(torch.tensor(bad), 3, generator(0))
    with pytest.raises(InputError, match="at least 1"):
        systematic_resampling(torch.zeros(3), 0, generator(0))
