"""Flow matching of conformations of several molecules, padded to the largest, in one batch."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bnce_dist.core.couplings import Coupling, random_rotations
from bnce_dist.core.interpolant import Interpolant
from bnce_dist.core.objectives import shuffled_times


class AtomVelocity(Protocol):
    """What ``MolecularFlowMatching`` needs of a model (see ``nn.gvp.GVPVectorField``)."""

    def velocity(self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor) -> Tensor:
        """Return the atoms' velocities, ``(batch, atoms, 3)``."""
        ...


def pack_conformations(conformations: Sequence[Tensor]) -> Tensor:
    """Return conformations of several molecules as rows of one table.

    Args:
        conformations: Of each molecule, ``(samples, atoms, 3)``.

    Returns: ``(samples of all, 1 + 3 max_atoms)``: the molecule's place in the list, then the
        positions with zeros for the atoms it does not have.
    """
    num_columns = 3 * max(positions.shape[1] for positions in conformations)
    rows = []
    for index, positions in enumerate(conformations):
        flat = positions.flatten(1)
        padded = nn.functional.pad(flat, (0, num_columns - flat.shape[1]))
        rows.append(torch.cat([flat.new_full((len(flat), 1), index), padded], dim=1))
    return torch.cat(rows)


class MolecularFlowMatching(nn.Module):
    r"""Regression of the atoms' velocity on the path's time derivative, without the mean motion.

    .. math:: L = E \frac{1}{3 (N - 1)} \sum_{i=1}^N
                  \frac{|v_i(x_t, t) - \dot x_{t,i}|^2}{\dot\alpha^2(t) + \dot\sigma^2(t)}

    Data are turned at random, noise is standard normal in the mean-free subspace of each
    molecule, and a coupling pairs them. Every molecule weighs the same, whatever its size.

    Args:
        velocity_field: The model, with parameters.
        interpolant: From data to noise.
        node_features: Of each molecule, in the order of the data, ``(atoms, features)``.
        coupling: Pairs noise with data.
        time_exponent: Times are ``u**time_exponent`` with ``u`` uniform.

    Source: Lipman et al. (2023), eq. 9; Klein et al. (2024), transferable Boltzmann generators.
    """

    shared: ClassVar[frozenset[str]] = frozenset()
    double_backward: ClassVar[bool] = False
    node_features: Tensor
    mask: Tensor

    def __init__(
        self,
        velocity_field: AtomVelocity,
        interpolant: Interpolant,
        node_features: Sequence[Tensor],
        *,
        coupling: Coupling,
        time_exponent: float = 1.0,
    ) -> None:
        super().__init__()
        self.velocity_field = velocity_field
        self.interpolant = interpolant
        self.coupling = coupling
        self.time_exponent = time_exponent
        features = pad_sequence(list(node_features), batch_first=True)
        mask = pad_sequence([one.new_ones(len(one)) for one in node_features], batch_first=True)
        self.register_buffer("node_features", features, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def draw(
        self,
        x_data: Tensor,
        generator: torch.Generator,
        common: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the arguments of ``forward`` for packed conformations.

        Args:
            x_data: Rows of ``pack_conformations``, ``(batch, 1 + 3 max_atoms)``.
            generator: Source of randomness.
            common: Not needed: the samples have nothing in common.
        """
        molecule, positions = x_data[:, 0].long(), x_data[:, 1:].unflatten(1, (-1, 3))
        mask = self.mask.to(x_data)[molecule]
        t = shuffled_times(len(x_data), self.time_exponent, generator, like=x_data)
        noise = torch.randn(positions.shape, generator=generator, device=generator.device)
        noise = _mean_free(noise.to(x_data), mask)
        rotations = random_rotations(len(x_data), generator).to(x_data)
        positions = _mean_free(positions, mask) @ rotations
        noise = self.coupling(positions, noise, molecule)
        return {"molecule": molecule, "x_data": positions, "x_noise": noise, "t": t}

    def forward(
        self, molecule: Tensor, x_data: Tensor, x_noise: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean loss.

        Args:
            molecule: Index of each sample's molecule, ``(batch,)``.
            x_data: ``(batch, atoms, 3)``, of mean zero.
            x_noise: ``(batch, atoms, 3)``, of mean zero.
            t: ``(batch,)``, positive.
        """
        time = t[:, None, None]
        alpha_dot, sigma_dot = self.interpolant.alpha_dot(time), self.interpolant.sigma_dot(time)
        x_t = self.interpolant.alpha(time) * x_data + self.interpolant.sigma(time) * x_noise
        mask = self.mask[molecule]
        velocity = self.velocity_field.velocity(x_t, t, self.node_features[molecule], mask)
        error = _mean_free(velocity, mask) - alpha_dot * x_data - sigma_dot * x_noise
        squared = (error / torch.hypot(alpha_dot, sigma_dot)).square().sum((1, 2))
        return {"loss": (squared / (3 * (mask.sum(1) - 1))).mean()}


def _mean_free(vectors: Tensor, mask: Tensor) -> Tensor:
    """Subtract the mean over the real atoms; the others become zero."""
    vectors = vectors * mask[..., None]
    mean = vectors.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    return (vectors - mean) * mask[..., None]
