"""Exact densities of some of an ensemble's samples, and the weights that follow from them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.core.exact_subset import ExactSubset, select_for_exact
from bnce_dist.core.free_energy import MIN_EXACT
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.generator.samples import FloatArray

_AT_ONCE = 50


def with_exact(
    ensemble: Ensemble,
    log_density_z: FloatArray,
    num_exact: int,
    emulator: Emulator,
    prior: Callable[[int], Tensor],
    batch_size: int,
) -> Ensemble:
    """Return samples in whose weights an exact density replaces the learned one of the start.

    Where the sampler folds space, which these densities do not see, is kept beside them.

    Args:
        ensemble: All samples.
        log_density_z: Learned one of where they started, ``(samples,)`` [nats].
        num_exact: How many get one: half of them the first, the others drawn in proportion to their
            weights, on each side of the state alike.
        emulator: Made the samples.
        prior: The noise that a batch was made of, by the batch's number.
        batch_size: Samples of a batch.

    Raises: InputError: too few of them are on one side of the state; it names how many would do.
    """
    num_random = num_exact if num_exact == len(ensemble) else num_exact - num_exact // 2
    subset = select_for_exact(
        ensemble.log_weights,
        ensemble.in_state,
        num_random=num_random,
        num_weighted=num_exact - num_random,
    )
    rows = subset.rows
    _require_both_sides(ensemble, subset)
    exact, inverted = np.full(len(ensemble), np.nan), np.zeros(len(ensemble), dtype=bool)
    for number, start in enumerate(range(0, len(ensemble), batch_size)):
        mine = rows[(rows >= start) & (rows < start + batch_size)]
        if not len(mine):
            continue
        noise = prior(number)
        parts = torch.from_numpy(mine - start).to(noise.device).split(_AT_ONCE)
        computed = [emulator.transport_with_log_density(noise[part]) for part in parts]
        exact[mine] = torch.cat([one[1] for one in computed]).double().cpu().numpy()
        inverted[mine] = torch.cat([one[2] for one in computed]).cpu().numpy()
    learned = ensemble.log_weights
    # All else is in the learned weight; what has none has none by any density.
    weights = np.where(np.isneginf(learned), learned, learned + log_density_z - exact)
    weights[np.isnan(exact)] = np.nan
    return replace(
        ensemble,
        log_weights_exact=weights,
        num_random=num_random,
        inclusion=subset.inclusion,
        inverted=inverted,
    )


def _require_both_sides(ensemble: Ensemble, subset: ExactSubset) -> None:
    """Refuse exact densities of too few samples of one side, before they are computed.

    Args:
        ensemble: Of all samples.
        subset: Which of them get an exact density.

    Raises: InputError: it names how many would do.
    """
    possible = np.isfinite(ensemble.log_weights)
    chosen = np.zeros(len(ensemble), dtype=bool)
    chosen[subset.rows] = True
    for side in (ensemble.in_state & possible, ~ensemble.in_state & possible):
        num_chosen, enough = int((chosen & side).sum()), min(MIN_EXACT, int(side.sum()))
        if num_chosen < enough:
            # A quarter of those that are asked for are drawn from each side.
            needed = min(4 * MIN_EXACT, len(ensemble))
            raise InputError(
                "num_exact",
                expected=f"at least {needed}, of which {enough} are on the rarer side",
                got=f"{len(subset.rows)}, of which {num_chosen} are",
                remedy=f"ask for {needed} or more, or for none",
            )
