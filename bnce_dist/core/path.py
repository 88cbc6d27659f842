"""The probability path on the product of a Euclidean block and a torus."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import CircularInterpolant, Interpolant


def wrap_angle(angle: Tensor) -> Tensor:
    """Return the angle's representative in ``(-pi, pi]`` [rad].

    Examples:
        >>> wrap_angle(torch.tensor([0.5, 3.5, -math.pi]))
        tensor([ 0.5000, -2.7832,  3.1416])
    """
    wrapped = math.pi - torch.remainder(math.pi - angle, 2 * math.pi)
    # The remainder of a tiny negative number rounds to the whole period.
    return torch.where(wrapped > -math.pi, wrapped, wrapped + 2 * math.pi)


@dataclass(frozen=True)
class ProductPath:
    """From data at ``t = 0`` to a Gaussian times a uniform torus at ``t = 1``.

    Vectors are ``(batch, dim)`` with the Euclidean block first and the angles [rad] after it.
    The Euclidean block is expected to have zero mean and unit variance at the data.

    Args:
        euclidean: Schedules of the Euclidean block.
        num_euclidean: Its size.
        num_circular: Number of angles.
        circular: Schedule of the angles.

    Examples:
        Half way between data at 1 and noise of -1, on a line and on a circle:

        >>> from bnce_dist.core.interpolant import LinearInterpolant
        >>> path = ProductPath(LinearInterpolant(), num_euclidean=1, num_circular=1)
        >>> path.interpolate(torch.ones(1, 2), -torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[ 0.0000, -0.4142]])
    """

    euclidean: Interpolant
    num_euclidean: int
    num_circular: int = 0
    circular: CircularInterpolant = field(default_factory=CircularInterpolant)

    def __post_init__(self) -> None:
        if min(self.num_euclidean, self.num_circular) < 0 or self.dim == 0:
            raise InputError(
                "path",
                expected="num_euclidean >= 0, num_circular >= 0 and at least one coordinate",
                got=f"{self.num_euclidean} and {self.num_circular}",
                remedy="take both numbers from the coordinates",
            )

    @property
    def dim(self) -> int:
        """Number of coordinates of both blocks."""
        return self.num_euclidean + self.num_circular

    def interpolate(self, x_data: Tensor, x_noise: Tensor, t: Tensor) -> Tensor:
        """Return the point at time ``t`` between data and noise, angles wrapped.

        Args:
            x_data: ``(batch, dim)``.
            x_noise: Standard normal in every coordinate, ``(batch, dim)``.
            t: Times in [0, 1], ``(batch,)``.

        Returns: ``(batch, dim)``.
        """
        alpha = self._per_coordinate(self.euclidean.alpha(t), self.circular.alpha(t))
        return self.wrap(alpha * x_data + self.noise_scale(t) * x_noise)

    def velocity_target(self, x_data: Tensor, x_noise: Tensor, t: Tensor) -> Tensor:
        """Return the time derivative of ``interpolate``; its conditional mean is the velocity.

        Args:
            x_data: ``(batch, dim)``.
            x_noise: Standard normal in every coordinate, ``(batch, dim)``.
            t: Times in [0, 1], ``(batch,)``.

        Returns: ``(batch, dim)``.
        """
        alpha_dot = self._per_coordinate(self.euclidean.alpha_dot(t), self.circular.alpha_dot(t))
        sigma_dot = self._per_coordinate(self.euclidean.sigma_dot(t), self.circular.sigma_dot(t))
        return alpha_dot * x_data + sigma_dot * x_noise

    def noise_scale(self, t: Tensor) -> Tensor:
        """Return ``sigma(t)`` of every coordinate, ``(batch, dim)``."""
        return self._per_coordinate(self.euclidean.sigma(t), self.circular.sigma(t))

    def velocity_scale(self, t: Tensor) -> Tensor:
        """Return the root mean square of ``velocity_target`` per coordinate, ``(batch, dim)``.

        Exact for data of unit variance in the Euclidean block.
        """
        euclidean = torch.hypot(self.euclidean.alpha_dot(t), self.euclidean.sigma_dot(t))
        return self._per_coordinate(euclidean, self.circular.sigma_dot(t))

    def sample_noise(
        self, num_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return standard normal noise, ``(num_samples, dim)``, on the generator's device."""
        return torch.randn(
            num_samples, self.dim, generator=generator, device=generator.device, dtype=dtype
        )

    def sample_prior(
        self, num_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return samples of the distribution at ``t = 1``, on the generator's device.

        Returns: ``(num_samples, dim)``.
        """
        z = self.sample_noise(num_samples, generator, dtype)
        angles = z[:, self.num_euclidean :]
        angles.uniform_(-math.pi, math.pi, generator=generator)
        return z

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the normalised log density at ``t = 1``.

        Args:
            z: ``(batch, dim)``.

        Returns: ``(batch,)`` [nats].
        """
        squared_norm = z[:, : self.num_euclidean].square().sum(1)
        return -0.5 * squared_norm - (0.5 * self.num_euclidean + self.num_circular) * math.log(
            2 * math.pi
        )

    def wrap(self, z: Tensor) -> Tensor:
        """Return ``z`` with the angles brought into ``(-pi, pi]``."""
        if self.num_circular == 0:
            return z
        euclidean, angles = z.split([self.num_euclidean, self.num_circular], dim=-1)
        return torch.cat([euclidean, wrap_angle(angles)], dim=-1)

    def _per_coordinate(self, euclidean: Tensor, circular: Tensor) -> Tensor:
        """Spread one value per sample and block, ``(batch,)``, over the coordinates."""
        return torch.cat(
            [
                euclidean[:, None].expand(-1, self.num_euclidean),
                circular[:, None].expand(-1, self.num_circular),
            ],
            dim=1,
        )
