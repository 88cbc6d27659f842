"""Which noise goes with which data in a minibatch: shorter paths are easier to learn.

Conformations are ``(batch, atoms, 3)`` of mean zero, with zeros where a molecule has fewer atoms
than the batch. A coupling must leave the noise of each molecule standard normal over the batches:
optimal transport permutes samples of one molecule, and the Kabsch rotation needs data of uniformly
random orientation (``random_rotations``).
"""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

Coupling = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Returns the noise as paired with the data, for data, noise and each sample's molecule."""


def independent(x_data: Tensor, x_noise: Tensor, molecule: Tensor) -> Tensor:
    """Return the noise as it is."""
    return x_noise


def optimal_transport(x_data: Tensor, x_noise: Tensor, molecule: Tensor) -> Tensor:
    """Return the noise in the order of least total squared distance to the data.

    Args:
        x_data: ``(batch, atoms, 3)``.
        x_noise: ``(batch, atoms, 3)``.
        molecule: Which molecule a sample is of, ``(batch,)``; noise stays with its molecule.

    Returns: ``(batch, atoms, 3)``.
    Source: Tong et al. (2024), minibatch optimal transport.
    """
    paired = x_noise.clone()
    for index in molecule.unique():
        (rows,) = (molecule == index).nonzero(as_tuple=True)
        # The squared norms of both sides do not depend on the pairing.
        similarity = x_data[rows].flatten(1) @ x_noise[rows].flatten(1).T
        _, order = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
        paired[rows] = x_noise[rows[torch.from_numpy(order).to(rows.device)]]
    return paired


def kabsch(x_data: Tensor, x_noise: Tensor, molecule: Tensor) -> Tensor:
    """Return each sample's noise rotated onto its data.

    Args:
        x_data: ``(batch, atoms, 3)``.
        x_noise: ``(batch, atoms, 3)``.
        molecule: Not needed.

    Returns: ``(batch, atoms, 3)``.
    Source: Kabsch (1976); Klein et al. (2023) for flow matching.
    """
    return x_noise @ kabsch_rotation(x_data, x_noise)


COUPLINGS: dict[str, Coupling] = {
    function.__name__: function for function in (independent, optimal_transport, kabsch)
}
"""By the name that configurations use."""


def kabsch_rotation(fixed: Tensor, moved: Tensor) -> Tensor:
    r"""Return the proper rotations ``R`` for which ``moved @ R`` is nearest to ``fixed``.

    Args:
        fixed: Of mean zero, ``(batch, atoms, 3)``.
        moved: Of mean zero, ``(batch, atoms, 3)``.

    Returns: ``(batch, 3, 3)``.
    Source: Kabsch (1976).
    """
    u, _, vt = torch.linalg.svd(moved.mT @ fixed)
    sign = torch.linalg.det(u @ vt)
    # Turning the axis of least covariance costs least where the optimum is a reflection.
    u = torch.cat([u[..., :2], u[..., 2:] * sign[:, None, None]], dim=2)
    return u @ vt


def random_rotations(number: int, generator: torch.Generator) -> Tensor:
    """Return rotations drawn uniformly, ``(number, 3, 3)`` float32.

    Args:
        number: How many.
        generator: Source of randomness.

    Source: Shoemake (1992): a normalised Gaussian is a uniform unit quaternion.
    """
    quaternion = torch.randn(number, 4, generator=generator, device=generator.device)
    w, x, y, z = F.normalize(quaternion, dim=1).unbind(1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=1).view(number, 3, 3)
