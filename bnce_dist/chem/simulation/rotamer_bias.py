"""A bias on the torsions that no umbrella window holds, so that none of their wells is a trap."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnce_dist.chem.molecule import Molecule, Quadruple
from bnce_dist.chem.simulation.bias import harmonics
from bnce_dist.chem.simulation.replica_exchange import window_centres

NUM_BINS = 72
"""Bins of a torsion's histogram."""
NUM_PAIR_BINS = 48
"""Bins of each torsion in the histogram of a pair."""
SMOOTHING_RAD = 0.17
"""Width of the kernel the histograms are smoothed with."""
ORDER = 8
"""Highest harmonic of the bias of one torsion."""
PAIR_ORDER = 6
"""Highest harmonics of the bias of a pair."""
CEILING_KT = 2.0
"""Height that is left to the barriers of one torsion [kT]."""
PAIR_CEILING_KT = 3.0
"""Height that is left to those of a pair [kT]. A plane has more room on its heights than a line: at
2 kT the frames of ACE-ALA-ALA-ALA-NME are worth a quarter of what they are at 3 kT."""


class RotamerBias:
    r"""A sum of truncated Fourier series, one for each torsion or pair of torsions.

    It pulls what lies high in the free energy :math:`F_i` of a torsion alone, or of the phi and psi
    of one residue together, down to a ceiling above its lowest point, so that no well traps a chain
    for long, and leaves the wells as they are, so that little weight is lost when it is removed:
    :math:`B_i(x) = -\max(F_i(x) - \min F_i - c, 0)`.

    Args:
        coefficients: ``(torsions, 2 m + 1)`` [kT], zero for those in pairs.
        surfaces: ``(pairs, 2 n + 1, 2 n + 1)`` [kT], on the same device.
        pairs: Places of the pairs among the torsions.
    """

    def __init__(
        self,
        coefficients: np.ndarray | Tensor,
        surfaces: np.ndarray | Tensor | None = None,
        pairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.coefficients = torch.as_tensor(coefficients)
        size = 2 * PAIR_ORDER + 1
        if surfaces is None:
            surfaces = self.coefficients.new_zeros(len(pairs), size, size)
        self.surfaces, self.pairs = torch.as_tensor(surfaces), tuple(pairs)

    @classmethod
    def none(
        cls,
        num_torsions: int,
        device: torch.device | None = None,
        pairs: Sequence[tuple[int, int]] = (),
    ) -> "RotamerBias":
        """Return a bias of zero."""
        size = (num_torsions, 2 * ORDER + 1)
        return cls(torch.zeros(size, dtype=torch.float64, device=device), None, pairs)

    def refined(self, angles: np.ndarray) -> "RotamerBias":
        """Return the bias for the free energies that samples drawn under this one show.

        Args:
            angles: ``(samples, torsions)`` [rad].
        """
        lines, surfaces = self.coefficients.cpu().clone(), self.surfaces.cpu().clone()
        paired = {torsion for pair in self.pairs for torsion in pair}
        values = harmonics(window_centres(NUM_BINS), ORDER)[0]
        for torsion in set(range(len(lines))) - paired:
            present = (values @ lines[torsion]).numpy()
            free_energy = _free_energy(angles[:, [torsion]], NUM_BINS) - present
            above = torch.from_numpy(_above(free_energy, CEILING_KT))
            # On a full circle of points the harmonics are orthogonal.
            lines[torsion] = -(values.T @ above) / values.square().sum(0)
        values = harmonics(window_centres(NUM_PAIR_BINS), PAIR_ORDER)[0]
        norms = values.square().sum(0)
        for number, pair in enumerate(self.pairs):
            present = (values @ surfaces[number] @ values.T).numpy()
            free_energy = _free_energy(angles[:, pair], NUM_PAIR_BINS) - present
            above = torch.from_numpy(_above(free_energy, PAIR_CEILING_KT))
            surfaces[number] = -(values.T @ above @ values) / torch.outer(norms, norms)
        device = self.coefficients.device
        return RotamerBias(lines.to(device), surfaces.to(device), self.pairs)

    def energy(self, angles: np.ndarray) -> np.ndarray:
        """Return the bias of samples, ``(samples, torsions)`` [rad] to ``(samples,)`` [kT]."""
        places = torch.from_numpy(angles).to(self.coefficients.dtype)
        values, _ = harmonics(places, ORDER)
        total = torch.einsum("...ik,ik->...", values, self.coefficients.cpu())
        for surface, pair in zip(self.surfaces.cpu(), self.pairs, strict=True):
            first, second = harmonics(places[..., list(pair)], PAIR_ORDER)[0].unbind(-2)
            total += ((first @ surface) * second).sum(-1)
        return total.numpy()

    def slopes(self, angles: Tensor) -> Tensor:
        """Return the derivatives at ``(chains, torsions)`` angles, same shape [kT/rad]."""
        _, slopes = harmonics(angles, ORDER)
        result = torch.einsum("...ik,ik->...i", slopes, self.coefficients.to(angles.dtype))
        if not self.pairs:
            return result
        places = torch.tensor(self.pairs, device=angles.device)
        # (chains, pairs, harmonics) of the first and of the second torsion of each pair.
        values, slopes = harmonics(angles[:, places], PAIR_ORDER)
        surfaces = self.surfaces.to(angles.dtype)
        of_pairs = torch.stack(
            (
                torch.einsum("bpi,pij,bpj->bp", slopes[:, :, 0], surfaces, values[:, :, 1]),
                torch.einsum("bpi,pij,bpj->bp", values[:, :, 0], surfaces, slopes[:, :, 1]),
            ),
            dim=2,
        )
        return result.index_add(1, places.flatten(), of_pairs.flatten(1))


def backbone_pairs(molecule: Molecule, torsions: Sequence[Quadruple]) -> list[tuple[int, int]]:
    """Return the places among torsions of the phi and psi of one residue, for every residue.

    Args:
        molecule: Names the atoms.
        torsions: Of the molecule.
    """
    bonds = [tuple(molecule.atom_names[atom] for atom in torsion[1:3]) for torsion in torsions]
    return [
        (phi, psi)
        for phi in range(len(torsions))
        for psi in range(len(torsions))
        if bonds[phi] == ("N", "CA")
        and bonds[psi] == ("CA", "C")
        and torsions[phi][2] == torsions[psi][1]
    ]


def _above(free_energy: NDArray[np.float64], ceiling_kT: float) -> NDArray[np.float64]:
    return np.maximum(free_energy - free_energy.min() - ceiling_kT, 0)


def _free_energy(angles: np.ndarray, num_bins: int) -> NDArray[np.float64]:
    """Return -ln p on the bins, smoothed; where nothing was seen, as if half a sample was.

    Args:
        angles: ``(samples, torsions)`` [rad].
        num_bins: For each torsion.

    Returns: One axis for each torsion.
    """
    dims = angles.shape[1]
    counts, _ = np.histogramdd(angles, num_bins, range=[(-np.pi, np.pi)] * dims)
    frequency = np.fft.fftfreq(num_bins, 1 / num_bins)
    damping = np.exp(-0.5 * (frequency * SMOOTHING_RAD) ** 2)
    spectrum = np.fft.fftn(counts)
    for axis in range(dims):
        spectrum *= np.expand_dims(damping, [a for a in range(dims) if a != axis])
    return -np.log(np.maximum(np.fft.ifftn(spectrum).real, 0.5))
