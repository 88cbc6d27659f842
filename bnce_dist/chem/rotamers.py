"""A bias that lowers the barriers between the wells of side-chain torsions."""

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.flattening import harmonics
from bnce_dist.chem.replica_exchange import window_centres

NUM_BINS = 72
"""Bins of a torsion's histogram."""
SMOOTHING_RAD = 0.17
"""Width of the kernel the histogram is smoothed with."""
ORDER = 8
"""Highest harmonic of the bias."""


class RotamerBias:
    r"""A sum of truncated Fourier series, one for each torsion.

    It pulls what lies high in the free energy :math:`F_i` of a torsion alone down to a ceiling
    above its lowest point, so that no well traps a chain for long, and leaves the wells as they
    are, so that little weight is lost when it is removed:
    :math:`B_i(x) = -\max(F_i(x) - \min F_i - c, 0)`.

    Args:
        coefficients: ``(torsions, 2 m + 1)`` [kT].
    """

    def __init__(self, coefficients: np.ndarray | Tensor) -> None:
        self.coefficients = torch.as_tensor(coefficients)

    @classmethod
    def none(cls, num_torsions: int) -> "RotamerBias":
        """Return a bias of zero."""
        return cls(torch.zeros(num_torsions, 2 * ORDER + 1, dtype=torch.float64))

    def refined(self, angles: np.ndarray, ceiling_kt: float) -> "RotamerBias":
        """Return the bias for the free energies that samples drawn under this one show.

        Args:
            angles: ``(samples, torsions)`` [rad].
            ceiling_kt: Height above the lowest point that is left to barriers [kT].
        """
        centres = window_centres(NUM_BINS)
        values = harmonics(centres, ORDER)[0]
        series = []
        for torsion, present in zip(angles.T, self.coefficients, strict=True):
            free_energy = _free_energy(torsion) - (values @ present).numpy()
            above = np.maximum(free_energy - free_energy.min() - ceiling_kt, 0)
            # On a full circle of points the harmonics are orthogonal.
            projected = values.T @ torch.from_numpy(-above) / values.square().sum(0)
            series.append(projected)
        return RotamerBias(torch.stack(series) if series else self.coefficients)

    def energy(self, angles: np.ndarray) -> np.ndarray:
        """Return the bias of samples, ``(samples, torsions)`` [rad] to ``(samples,)`` [kT]."""
        values, _ = harmonics(torch.from_numpy(angles).to(self.coefficients.dtype), ORDER)
        return torch.einsum("...ik,ik->...", values, self.coefficients).numpy()

    def slopes(self, angles: Tensor) -> Tensor:
        """Return the derivatives at ``(chains, torsions)`` angles, same shape [kT/rad]."""
        _, slopes = harmonics(angles, ORDER)
        return torch.einsum("...ik,ik->...i", slopes, self.coefficients.to(angles.dtype))


def _free_energy(torsion: np.ndarray) -> np.ndarray:
    """Return -ln p on the bins, smoothed; where nothing was seen, as if half a sample was."""
    counts, _ = np.histogram(torsion, NUM_BINS, range=(-np.pi, np.pi))
    frequency = np.arange(NUM_BINS // 2 + 1)
    damping = np.exp(-0.5 * (frequency * SMOOTHING_RAD) ** 2)
    smooth = np.fft.irfft(np.fft.rfft(counts) * damping, NUM_BINS)
    return -np.log(np.maximum(smooth, 0.5))
