"""Biases on torsions as forces on atoms, with analytic gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Torsions:
    """Torsions of a molecule and the forces of energies that depend on them.

    Args:
        quadruples: Atom quadruples of the torsions.
    """

    def __init__(self, quadruples: Sequence[tuple[int, int, int, int]]) -> None:
        self.atoms = torch.tensor(quadruples)

    def angles(self, positions_nm: Tensor) -> Tensor:
        """Return the torsions, ``(chains, torsions)`` in (-pi, pi] [rad]."""
        return self.angles_and_gradients(positions_nm)[0]

    def add_forces(self, forces: Tensor, gradients: Tensor, slopes: Tensor) -> Tensor:
        """Add the forces of an energy of the torsions to ``forces`` in place and return it.

        Args:
            forces: ``(chains, atoms, 3)`` [kJ/mol/nm].
            gradients: From ``angles_and_gradients``.
            slopes: Derivative of the energy by each torsion, ``(chains, torsions)`` [kJ/mol/rad].
        """
        pulls = (-slopes[:, :, None, None] * gradients).flatten(1, 2)
        return forces.index_add_(1, self.atoms.flatten(), pulls)

    def angles_and_gradients(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return the torsions and their derivatives by the positions of their atoms.

        Args:
            positions_nm: ``(chains, atoms, 3)`` [nm].

        Returns: ``(chains, torsions)`` [rad] and ``(chains, torsions, 4, 3)`` [rad/nm].

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
