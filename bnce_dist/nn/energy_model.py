r"""What all energy models share: scalar networks with :math:`p_t(z) \propto \exp U_t(z)`."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bnce_dist.core.path import ProductPath
from bnce_dist.nn.rebuildable import Rebuildable


class EnergyModel(Rebuildable, ABC):
    """A network that gives the log density of every marginal of a path, up to a constant.

    Constructors take plain types, by the names of the configuration's section ``energy`` and of
    ``core.space.Space``; one that takes ``node_features`` is of Cartesian coordinates.
    """

    architecture: ClassVar[str]
    """Name under which configurations and files know the class."""

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``.

        Args:
            z: Points, ``(batch, dim)``.
            t: One time per point, ``(batch,)``.

        Returns: ``(batch,)`` [nats], up to one constant.
        """

    @abstractmethod
    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        """Return ``U`` of every point at several times.

        Args:
            z: Points, ``(batch, dim)``.
            times: Common to all points, ``(times,)``, or each point's own, ``(batch, times)``.

        Returns: ``(batch, times)`` [nats], up to one constant.
        """

    @abstractmethod
    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``forward(z, t)`` and ``at_times(z, times)`` from one pass over the points.

        Args:
            z: Points, ``(batch, dim)``.
            t: One time per point, ``(batch,)``.
            times: Common to all points, ``(times,)``, or each point's own, ``(batch, times)``.

        Returns: ``(batch,)`` and ``(batch, times)`` [nats], up to one constant.
        """

    def log_density_z(self, z: Tensor, path: ProductPath) -> Tensor:
        r"""Return the normalised log density of the data's marginal.

        .. math:: \log p_0(z) = U_0(z) - U_1(z) + \log p_1(z)

        The difference removes what contrasting times cannot see, a function of ``z`` alone, and
        the known prior fixes the constant.

        Args:
            z: Points, ``(batch, dim)``.
            path: The path the model was trained on.

        Returns: ``(batch,)`` [nats].
        """
        ends = self.at_times(z, torch.arange(2, device=z.device, dtype=z.dtype))
        return ends[:, 0] - ends[:, 1] + path.log_prior(z)
