"""Tests of whether block estimates of independent replicas are those of an equilibrated run."""

import numpy as np
from scipy import stats


def trend_p_value(blocks: np.ndarray) -> float:
    """Return how likely so steep a trend over the blocks is in the absence of one.

    One common slope in time is fitted to all replicas, each with its own mean, and tested by
    Student's t.

    Args:
        blocks: Estimates in order of time, ``(replicas, blocks)``.
    """
    num_replicas, num_blocks = blocks.shape
    time = np.arange(num_blocks) - (num_blocks - 1) / 2
    centred = blocks - blocks.mean(axis=1, keepdims=True)
    sum_of_squares = num_replicas * (time**2).sum()
    slope = (centred * time).sum() / sum_of_squares
    freedom = num_replicas * (num_blocks - 1) - 1
    residual_variance = ((centred - slope * time) ** 2).sum() / freedom
    return float(2 * stats.t.sf(abs(slope) / np.sqrt(residual_variance / sum_of_squares), freedom))


def agreement_p_value(blocks: np.ndarray) -> float:
    """Return how likely replica means so different are if all replicas sample the same.

    Args:
        blocks: Estimates, ``(replicas, blocks)``; one replica always agrees with itself.

    Source: Fisher's one-way analysis of variance.
    """
    return float(stats.f_oneway(*blocks).pvalue) if len(blocks) > 1 else 1.0
