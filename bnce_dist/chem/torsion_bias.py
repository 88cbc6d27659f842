"""Periodic restraints on torsions, with analytic forces."""

from collections.abc import Sequence

import torch
from torch import Tensor


class TorsionBias:
    r"""Restrains the torsions of each chain to centres of that chain's own.

    .. math:: U(x) = \sum_t k_t \left(1 - \cos(\phi_t(x) - \phi_t^0)\right)

    Args:
        quadruples: Atom quadruples of the torsions.
        stiffness_kj_mol: One ``k`` per torsion [kJ/mol].
        centres: ``(chains, torsions)`` [rad].
    """

    def __init__(
        self,
        quadruples: Sequence[tuple[int, int, int, int]],
        stiffness_kj_mol: Sequence[float],
        centres: Tensor,
    ) -> None:
        self.atoms = torch.tensor(quadruples)
        self.stiffness = torch.tensor(stiffness_kj_mol, dtype=centres.dtype)
        self.centres = centres

    def angles(self, positions_nm: Tensor) -> Tensor:
        """Return the torsions, ``(chains, torsions)`` in (-pi, pi] [rad]."""
        return self._angles_and_gradients(positions_nm)[0]

    def energy_kj_mol(self, angles: Tensor) -> Tensor:
        """Return the bias energy of angles ``(chains, torsions)``, ``(chains,)`` [kJ/mol]."""
        return (self.stiffness * (1.0 - torch.cos(angles - self.centres))).sum(dim=-1)

    def add_forces(self, positions_nm: Tensor, forces: Tensor) -> Tensor:
        """Add the bias forces to ``forces`` in place and return it.

        Args:
            positions_nm: ``(chains, atoms, 3)`` [nm].
            forces: ``(chains, atoms, 3)`` [kJ/mol/nm].
        """
        angles, gradients = self._angles_and_gradients(positions_nm)
        slope = self.stiffness * torch.sin(angles - self.centres)
        pulls = (-slope[:, :, None, None] * gradients).flatten(1, 2)
        return forces.index_add_(1, self.atoms.flatten(), pulls)

    def _angles_and_gradients(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return angles ``(chains, torsions)`` and gradients ``(chains, torsions, 4, 3)``.

        Source: Blondel and Karplus (1996), J. Comput. Chem. 17, 1132, eqs. 5, 7 and 27.
        """
        i, j, k, m = positions_nm[:, self.atoms].unbind(dim=2)
        f, g, h = i - j, j - k, m - k
        a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
        length = g.norm(dim=-1, keepdim=True)
        angles = torch.atan2(
            (torch.linalg.cross(b, a) * g).sum(-1) / length.squeeze(-1), (a * b).sum(-1)
        )
        a = a / (a * a).sum(-1, keepdim=True)
        b = b / (b * b).sum(-1, keepdim=True)
        shear = ((f * g).sum(-1, keepdim=True) * a - (h * g).sum(-1, keepdim=True) * b) / length
        first, last = -length * a, length * b
        return angles, torch.stack((first, shear - first, -shear - last, last), dim=2)
