"""Umbrella windows in (phi, psi), which chain holds which, and the moves that swap neighbours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    r"""A periodic grid of windows, each with the bias :math:`k (1 - \cos(x - x_0))` along an angle.

    Args:
        num_phi: Windows along phi, even.
        num_psi: Windows along psi, even.
        reduced_stiffness: ``k`` along (phi, psi) [kT].
    """

    num_phi: int
    num_psi: int
    reduced_stiffness: tuple[float, float]

    def __len__(self) -> int:
        return self.num_phi * self.num_psi

    def centres(self) -> np.ndarray:
        """Return the window centres (phi, psi), ``(windows, 2)`` [rad]."""
        return torch.cartesian_prod(
            window_centres(self.num_phi), window_centres(self.num_psi)
        ).numpy()

    def reduced_bias(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Return the bias of every window at every sample, ``(windows, samples)`` [kT]."""
        centres, (k_phi, k_psi) = self.centres(), self.reduced_stiffness
        return k_phi * (1 - np.cos(phi - centres[:, :1])) + k_psi * (
            1 - np.cos(psi - centres[:, 1:])
        )


class WindowGrid:
    r"""A periodic grid of windows, each held by one chain.

    Two chains a, b in neighbouring windows swap with the Metropolis probability

    .. math:: \min(1, e^{-\beta [w_a(x_b) + w_b(x_a) - w_a(x_a) - w_b(x_b)]})

    which leaves the joint distribution as it is; only the bias of the axis along which the
    windows differ enters, since the other terms cancel.

    Args:
        windows: The grid; at first every window is held by the chain of the same index.
        device: Of the chains.

    Attributes:
        chain_at: The chain in each window, ``(num_phi, num_psi)``.
    """

    def __init__(self, windows: Windows, device: torch.device | None = None) -> None:
        chains = torch.arange(len(windows), device=device)
        self.chain_at = chains.view(windows.num_phi, windows.num_psi)
        self.reduced_stiffness = windows.reduced_stiffness
        self.accepted = torch.zeros(2, dtype=torch.long, device=device)
        self.attempted = torch.zeros(2, dtype=torch.long, device=device)

    @property
    def acceptance(self) -> tuple[float, float]:
        """Accepted share of the swaps tried so far along (phi, psi)."""
        phi, psi = (self.accepted / self.attempted).tolist()
        return phi, psi

    def window_of_chain(self) -> Tensor:
        """Return the window index ``phi_index * num_psi + psi_index`` of each chain."""
        return self.chain_at.flatten().argsort()

    def exchange(self, angles: Tensor, generator: torch.Generator) -> None:
        """Try to swap every pair of neighbours once, along phi and along psi.

        Args:
            angles: (phi, psi) of each chain, ``(chains, 2)`` [rad].
            generator: Source of the Metropolis draws, on the chains' device.
        """
        for axis in (0, 1):
            for parity in (0, 1):
                self._exchange_pairs(angles[:, axis], axis, parity, generator)

    def _exchange_pairs(
        self, angle: Tensor, axis: int, parity: int, generator: torch.Generator
    ) -> None:
        centres = window_centres(self.chain_at.shape[axis], angle.dtype, angle.device)
        centres = centres.roll(-parity).unflatten(0, (-1, 2))
        line = self.chain_at.movedim(axis, -1).roll(-parity, -1).unflatten(-1, (-1, 2))
        here, swapped = angle[line], angle[line.flip(-1)]
        agreement_gain = (torch.cos(swapped - centres) - torch.cos(here - centres)).sum(-1)
        log_ratio = self.reduced_stiffness[axis] * agreement_gain
        draw = torch.rand(
            log_ratio.shape, generator=generator, dtype=angle.dtype, device=angle.device
        )
        accept = draw.log() < log_ratio
        line = torch.where(accept[..., None], line.flip(-1), line)
        self.chain_at = line.flatten(-2).roll(parity, -1).movedim(-1, axis).contiguous()
        self.accepted[axis] += accept.sum()
        self.attempted[axis] += accept.numel()


def window_centres(
    num_windows: int, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> Tensor:
    """Return evenly spaced centres on the circle, starting at -pi [rad]."""
    number = torch.arange(num_windows, dtype=dtype, device=device)
    return number * (2 * math.pi / num_windows) - math.pi
