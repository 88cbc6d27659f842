"""What the figures are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnce_dist.chem.simulation.reference_frames import Energies, Reference
from bnce_dist.chem.state import POSITIVE_PHI, State

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResults:
    """A finished run as plain arrays: angles in rad, energies in kT, log densities in nats.

    Args:
        phi: The first dihedral, of the held-out emulator samples, ``(samples,)``.
        psi: The other one, ``(samples,)``.
        log_weights: Unclipped log weights of these samples, ``(samples,)``; ``-inf`` if rejected.
        tails: By name of each side of the state, exact log weights and how many samples each stands
            for, ``(exact,)``; empty where no sample has any weight.
        reduced_potential: Reduced potentials of these samples, ``(samples,)``.
        reference: Weighted frames of a simulation; None if there is none.
        reference_method: What that simulation is, as `reference_method` says.
        simulated: Energies of a simulation; None if there is none.
        losses: Per stage the array ``"step"`` and loss terms of the same length by name.
        log_density_exact: Exact log likelihood of held-out samples, ``(held_out,)``.
        log_density_learned: The energy model's log density of the same samples.
        delta_f_kT: Free energy of the state against the rest, from the reweighted samples; None
            where none of them has any weight.
        delta_f_stderr_kT: Its standard error.
        delta_f_reference_kT: The same from the reference; None if there is none.
        delta_f_reference_stderr_kT: Its standard error.
        temperatures: What the run found at other temperatures, as in ``metrics.json``.
        clip_fraction: Share of the weights that clipping lowers.
        state: The state.
        torsion_labels: What the two dihedrals are called.
        seed: Of the bootstrap bands.
    """

    phi: Array
    psi: Array
    log_weights: Array
    tails: Mapping[str, tuple[Array, Array]]
    reduced_potential: Array
    reference: Reference | None
    simulated: Energies | None
    losses: Mapping[str, Mapping[str, Array]]
    log_density_exact: Array
    log_density_learned: Array
    delta_f_kT: float | None
    delta_f_stderr_kT: float | None
    delta_f_reference_kT: float | None
    delta_f_reference_stderr_kT: float | None
    temperatures: Sequence[Mapping[str, Any]] = ()
    clip_fraction: float = 0.002
    state: State = POSITIVE_PHI
    torsion_labels: tuple[str, str] = ("φ", "ψ")
    reference_method: str = "umbrella sampling"
    seed: int = 0


def reference_method(settings: Mapping[str, Any]) -> str:
    """Return how a run came by its own reference.

    Args:
        settings: Those of the run by dotted name; what is unset may be left out.
    """
    return "trajectory" if settings.get("reference.trajectory") else "umbrella sampling"
