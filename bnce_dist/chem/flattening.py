"""A smooth bias of (phi, psi) that levels the free-energy landscape under the windows."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bnce_dist.chem.replica_exchange import window_centres
from bnce_dist.chem.umbrella_settings import UmbrellaSettings

NUM_GRID_POINTS = 60
"""Quadrature points per angle."""
ROUGHNESS_PENALTY = 1e-6
"""Weight of the squared curvature of the landscape in its fit, per sample."""


class FlatteningBias:
    r"""A truncated Fourier series in two angles.

    .. math:: B(\phi, \psi) = \sum_{ij} C_{ij}\, h_i(\phi)\, h_j(\psi), \qquad
              h = (1, \cos x, \dots, \cos mx, \sin x, \dots, \sin mx)

    Args:
        coefficients: ``C``, ``(2 m + 1, 2 m + 1)`` [kT].
    """

    def __init__(self, coefficients: np.ndarray | Tensor) -> None:
        self.coefficients = torch.as_tensor(coefficients)

    @classmethod
    def none(cls, order: int) -> "FlatteningBias":
        """Return a bias of zero."""
        return cls(torch.zeros(2 * order + 1, 2 * order + 1, dtype=torch.float64))

    def refined(
        self, phi: np.ndarray, psi: np.ndarray, window: np.ndarray, settings: UmbrellaSettings
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
            settings: The grid of windows.
        """
        grid = window_centres(NUM_GRID_POINTS)
        on_grid = harmonics(grid, self._order)[0].numpy()
        angles = torch.from_numpy(np.stack((phi, psi)).astype(np.float64))
        at_phi, at_psi = harmonics(angles, self._order)[0].numpy()
        observed = at_phi.T @ at_psi / len(phi)
        share = np.bincount(window, minlength=settings.num_windows) / len(phi)
        points = torch.cartesian_prod(grid, grid).numpy().T
        window_factors = np.exp(-settings.reduced_bias(*points))
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
        return FlatteningBias(self.coefficients - torch.from_numpy(left.reshape(observed.shape)))

    def energy(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Return the bias of samples ``(samples,)`` [kT]."""
        angles = torch.from_numpy(np.stack((phi, psi), axis=-1)).to(self.coefficients.dtype)
        at_samples, _ = harmonics(angles, self._order)
        return (at_samples[:, 0] @ self.coefficients * at_samples[:, 1]).sum(dim=-1).numpy()

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
    multiple = torch.arange(1, order + 1, dtype=angles.dtype)
    cosine, sine = torch.cos(angles[..., None] * multiple), torch.sin(angles[..., None] * multiple)
    one = torch.ones_like(angles[..., None])
    values = torch.cat((one, cosine, sine), dim=-1)
    return values, torch.cat((0 * one, -multiple * sine, multiple * cosine), dim=-1)
