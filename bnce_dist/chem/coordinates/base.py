"""What every coordinate system offers: an invertible map between positions and model space."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError


class Coordinates(nn.Module, ABC):
    r"""Map positions to a model-space vector and back, with exact log-determinants.

    A vector ``z`` holds the Euclidean coordinates first and then the circular ones, which are
    angles in :math:`(-\pi, \pi]`. Subclasses hold buffers only, never parameters; they compute
    in the dtype and on the device of their buffers and cast what they are given.

    Attributes:
        num_atoms: Atoms of the molecule.
        num_euclidean: Coordinates on the real line.
        num_circular: Coordinates on the circle.
    """

    num_atoms: int
    num_euclidean: int
    num_circular: int

    @property
    def dim(self) -> int:
        """Length of ``z``."""
        return self.num_euclidean + self.num_circular

    def encode(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return ``z`` and :math:`\log |\partial z / \partial x|`.

        Args:
            positions_nm: Atom positions, ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch, dim)`` and ``(batch,)`` [nats].
        Raises: InputError: wrong shape, a position is not finite, or a geometry at which the
            coordinates are singular; the message names the first such sample.
        """
        positions = self._checked_positions(positions_nm)
        self._require_regular(positions)
        return self._encode(positions)

    @abstractmethod
    def _encode(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `encode` does to positions that were checked: it never waits for the device."""

    @abstractmethod
    def _require_regular(self, positions_nm: Tensor) -> None:
        """Refuse finite positions at which the coordinates are singular."""

    @abstractmethod
    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return positions and :math:`\log |\partial x / \partial z|`; both always finite.

        Where :meth:`validity` is false the positions are those of a nearby molecule and must
        not be weighted.

        Args:
            z: Model-space vectors, ``(batch, dim)``.

        Returns: ``(batch, atoms, 3)`` [nm] and ``(batch,)`` [nats].
        Raises: InputError: wrong shape.
        """

    def pull_back(self, z: Tensor, positions_nm: Tensor, gradient: Tensor) -> Tensor:
        r"""Return the gradient by ``z`` of a function of positions plus the log-determinant.

        .. math:: \sum_i \frac{\partial x_i}{\partial z} g_i
                  + \frac{\partial}{\partial z} \log \Big|\frac{\partial x}{\partial z}\Big|

        Args:
            z: Model-space vectors, ``(batch, dim)``.
            positions_nm: Their ``decode``, ``(batch, atoms, 3)`` [nm].
            gradient: Of the function by them, :math:`g`, ``(batch, atoms, 3)`` [1/nm].

        Returns: ``(batch, dim)``; zero for coordinates that ``decode`` moved into its range.
        """
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            positions, log_det = self.decode(z)
            total = (positions * gradient).sum() + log_det.sum()
        return torch.autograd.grad(total, z)[0]

    @abstractmethod
    def validity(self, z: Tensor) -> Tensor:
        """Return which vectors are the code of a molecule, ``(batch,)`` bool.

        A model can leave the image of :meth:`encode` (a bond length below zero); such samples
        are to be counted and given weight zero.
        """

    def in_basin(self, positions_nm: Tensor) -> Tensor:
        """Return which positions are where models in these coordinates were trained, ``(batch,)``.

        False where a torsion that does not turn is in another basin; densities there mean nothing.

        Raises: InputError: as for :meth:`encode`.
        """
        return torch.ones(len(positions_nm), dtype=torch.bool, device=positions_nm.device)

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors from which :meth:`from_state` rebuilds this object."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the coordinates that :meth:`to_state` described."""

    def _checked_positions(self, positions_nm: Tensor) -> Tensor:
        expected = f"(batch, {self.num_atoms}, 3)"
        if positions_nm.ndim != 3 or positions_nm.shape[1:] != (self.num_atoms, 3):
            raise InputError(
                "shape of positions_nm",
                expected=expected,
                got=tuple(positions_nm.shape),
                remedy="give positions of the molecule these coordinates were made for",
            )
        finite = positions_nm.isfinite()
        if not finite.all():
            sample, atom, _ = finite.logical_not().nonzero()[0].tolist()
            raise InputError(
                "positions_nm",
                expected="finite numbers",
                got=f"{positions_nm[sample, atom].tolist()} for atom {atom} of sample {sample}",
                remedy="drop the sample, or find out why the simulation diverged",
            )
        return positions_nm

    def _checked_vectors(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise InputError(
                "shape of z",
                expected=f"(batch, {self.dim})",
                got=tuple(z.shape),
                remedy="decode with the coordinates the model was trained on",
            )
        return z


def normalised_weights(weights: Tensor | None, num_samples: int) -> Tensor:
    """Return float64 statistical weights that sum to one; equal ones if none are given.

    Args:
        weights: ``(num_samples,)``, in any normalisation.
        num_samples: Samples the weights belong to.

    Raises: InputError: no samples, another shape, or numbers that cannot be weights.
    """
    if num_samples == 0:
        raise InputError(
            "number of training samples",
            expected="at least one",
            got=0,
            remedy="look at why every frame was left out",
        )
    if weights is None:
        return torch.full((num_samples,), 1 / num_samples, dtype=torch.float64)
    weights = weights.cpu().double()
    usable = weights.shape == (num_samples,) and weights.isfinite().all() and (weights >= 0).all()
    if not usable or weights.sum() == 0:
        raise InputError(
            "weights",
            expected=f"{num_samples} finite numbers, none negative, not all zero",
            got=f"shape {tuple(weights.shape)}, sum {weights.sum():.3g}",
            remedy="pass one statistical weight per sample, not its logarithm",
        )
    return weights / weights.sum()
