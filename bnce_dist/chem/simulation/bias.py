"""Biases on torsions as forces on atoms, with analytic gradients."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bnce_dist.chem.simulation.replica_exchange import Windows, window_centres


class Torsions:
    """Torsions of a molecule and the forces of energies that depend on them.

    Args:
        quadruples: Atom quadruples of the torsions.
        device: Of the positions.
    """

    def __init__(
        self,
        quadruples: Sequence[tuple[int, int, int, int]],
        device: torch.device | None = None,
    ) -> None:
        self.atoms = torch.tensor(quadruples, device=device)

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


NUM_GRID_POINTS = 60
"""Quadrature points per angle."""
ROUGHNESS_PENALTY = 1e-6
"""Weight of the squared curvature of the landscape in its fit, per sample."""


class FlatteningBias:
    r"""A truncated Fourier series in two angles.

    .. math:: B(\phi, \psi) = \sum_{ij} C_{ij}\, h_i(\phi)\, h_j(\psi), \qquad
              h = (1, \cos x, \dots, \cos mx, \sin x, \dots, \sin mx)

    Args:
        coefficients: ``C``, ``(2 m + 1, 2 m + 1)`` [kT], on the device of the angles.
    """

    def __init__(self, coefficients: np.ndarray | Tensor) -> None:
        self.coefficients = torch.as_tensor(coefficients)

    @classmethod
    def none(cls, order: int, device: torch.device | None = None) -> "FlatteningBias":
        """Return a bias of zero."""
        size = (2 * order + 1, 2 * order + 1)
        return cls(torch.zeros(size, dtype=torch.float64, device=device))

    def refined(
        self, phi: np.ndarray, psi: np.ndarray, window: np.ndarray, windows: Windows
    ) -> "FlatteningBias":
        r"""Return a bias that levels what samples drawn under this one show is left.

        The landscape G under the present bias, again a Fourier series, maximises the likelihood
        of the samples given their windows,

        .. math:: \sum_n \left[-G(x_n) - \ln \int e^{-G(x) - w_{k(n)}(x)} dx\right],

        a concave function of its coefficients that, unlike a histogram, is smooth and says
        something about every point. The new bias is B - G.

        Args:
            phi: ``(samples,)`` [rad].
            psi: ``(samples,)`` [rad].
            window: The window each sample was drawn in, ``(samples,)``.
            windows: The grid of windows.
        """
        grid = window_centres(NUM_GRID_POINTS)
        on_grid = harmonics(grid, self._order)[0].numpy()
        angles = torch.from_numpy(np.stack((phi, psi)).astype(np.float64))
        at_phi, at_psi = harmonics(angles, self._order)[0].numpy()
        observed = at_phi.T @ at_psi / len(phi)
        share = np.bincount(window, minlength=len(windows)) / len(phi)
        points = torch.cartesian_prod(grid, grid).numpy().T
        window_factors = np.exp(-windows.reduced_bias(*points))
        frequency = np.r_[0, np.tile(np.arange(1, self._order + 1), 2)]
        stiffness = ROUGHNESS_PENALTY * (frequency[:, None] ** 2 + frequency**2) ** 2

        def negative_log_likelihood(flat: np.ndarray) -> tuple[float, np.ndarray]:
            coefficients = flat.reshape(observed.shape)
            density = np.exp(-(on_grid @ coefficients @ on_grid.T)).ravel()
            partition = window_factors @ density
            expected = density * (share / partition @ window_factors)
            expected_harmonics = on_grid.T @ expected.reshape(len(grid), -1) @ on_grid
            penalty = stiffness * coefficients
            value = (coefficients * (observed + penalty / 2)).sum() + share @ np.log(partition)
            return value, (observed - expected_harmonics + penalty).ravel()

        start = np.zeros(observed.size)
        left = minimize(negative_log_likelihood, start, jac=True, method="L-BFGS-B").x
        change = torch.from_numpy(left.reshape(observed.shape))
        return FlatteningBias(self.coefficients - change.to(self.coefficients.device))

    def energy(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Return the bias of samples ``(samples,)`` [kT]."""
        coefficients = self.coefficients.cpu()
        angles = torch.from_numpy(np.stack((phi, psi), axis=-1)).to(coefficients.dtype)
        at_samples, _ = harmonics(angles, self._order)
        return (at_samples[:, 0] @ coefficients * at_samples[:, 1]).sum(dim=-1).numpy()

    def slopes(self, angles: Tensor) -> Tensor:
        """Return the derivatives by (phi, psi) at ``(chains, 2)`` angles, same shape [kT/rad]."""
        (phi, psi), (phi_slope, psi_slope) = (
            part.unbind(dim=1) for part in harmonics(angles, self._order)
        )
        coefficients = self.coefficients.to(angles.dtype)
        return torch.stack(
            (
                (phi_slope @ coefficients * psi).sum(dim=-1),
                (phi @ coefficients * psi_slope).sum(dim=-1),
            ),
            dim=-1,
        )

    @property
    def _order(self) -> int:
        return (len(self.coefficients) - 1) // 2


def harmonics(angles: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Return ``h(x)`` and ``h'(x)`` with the harmonics along a new last axis."""
    multiple = torch.arange(1, order + 1, dtype=angles.dtype, device=angles.device)
    cosine, sine = torch.cos(angles[..., None] * multiple), torch.sin(angles[..., None] * multiple)
    one = torch.ones_like(angles[..., None])
    values = torch.cat((one, cosine, sine), dim=-1)
    return values, torch.cat((0 * one, -multiple * sine, multiple * cosine), dim=-1)
