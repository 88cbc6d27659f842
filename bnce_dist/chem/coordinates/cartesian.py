"""Cartesian coordinates without the centre of mass: for equivariant, transferable models."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates.base import Coordinates, normalised_weights
from bnce_dist.core.errors import InputError
from bnce_dist.core.mean_free import from_mean_free, to_mean_free, zero_sum_basis


class CenteredCartesian(Coordinates):
    r"""Scaled Cartesian coordinates in the subspace of zero mean position.

    :math:`z = Q^T x / s` with the ``(atoms, atoms - 1)`` orthonormal basis :math:`Q` of the
    vectors that sum to zero, and the scale :math:`s`: :math:`3(N-1)` Euclidean dimensions, with
    z reading ``(atoms - 1, 3)`` row by row. Densities are over molecules modulo translation; a
    rotation of the molecule rotates ``z``.

    Args:
        num_atoms: Atoms of the molecule.
        scale_nm: Length :math:`s` that counts as one [nm].
    """

    basis: Tensor
    scale_nm: Tensor

    def __init__(self, num_atoms: int, scale_nm: float) -> None:
        super().__init__()
        if num_atoms < 2:
            raise InputError(
                "number of atoms",
                expected="at least 2",
                got=num_atoms,
                remedy="one atom has no coordinates modulo translation",
            )
        if not 0 < scale_nm < float("inf"):
            raise InputError(
                "scale_nm",
                expected="a positive length",
                got=scale_nm,
                remedy="use the standard deviation of centred positions",
            )
        self.num_atoms = num_atoms
        self.num_euclidean = 3 * (num_atoms - 1)
        self.num_circular = 0
        self.register_buffer("basis", zero_sum_basis(num_atoms))
        self.register_buffer("scale_nm", torch.tensor(scale_nm, dtype=torch.float64))

    @classmethod
    def fit(cls, positions_nm: Tensor, weights: Tensor | None = None) -> Self:
        """Take the standard deviation of the centred training positions as the scale.

        Args:
            positions_nm: Training positions, ``(samples, atoms, 3)`` [nm].
            weights: Statistical weights, ``(samples,)``; equal if absent.

        Raises: InputError: as for :meth:`encode`, or positions that do not vary.
        """
        unit = cls(positions_nm.shape[1], scale_nm=1.0)
        z, _ = unit.encode(positions_nm)
        weights = normalised_weights(weights, num_samples=len(z))
        return cls(unit.num_atoms, float((weights @ z.square().mean(1)).sqrt()))

    def _encode(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        z = to_mean_free(positions_nm.to(self.basis), self.basis) / self.scale_nm
        return z, self._log_det_decode(len(z)).neg()

    def _require_regular(self, positions_nm: Tensor) -> None:
        """Refuse none: the map is linear."""

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Coordinates.decode`."""
        vectors = self._checked_vectors(z).to(self.basis)
        vectors = torch.where(vectors.isfinite(), vectors, 0.0)
        positions = from_mean_free(vectors, self.basis) * self.scale_nm
        return positions, self._log_det_decode(len(z))

    def validity(self, z: Tensor) -> Tensor:
        """See :meth:`Coordinates.validity`."""
        return self._checked_vectors(z).isfinite().all(1)

    @property
    def log_rotation_volume(self) -> float:
        r"""Log of the volume that the orientations of one conformation fill [nats].

        Added to the log density of a model that is blind to rotations it gives the log density
        over molecules modulo rigid motion, which is that of ``WhitenedInternal``. The rotations
        have the volume :math:`8 \pi^2`, and :math:`N^{-3/2}` is the determinant between the mean
        position, which is divided out here, and the position of one atom, which is there.
        """
        return math.log(8 * math.pi**2) - 1.5 * math.log(self.num_atoms)

    def to_state(self) -> dict[str, Any]:
        """See :meth:`Coordinates.to_state`."""
        return {
            "kind": "CenteredCartesian",
            "num_atoms": self.num_atoms,
            "scale_nm": float(self.scale_nm),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """See :meth:`Coordinates.from_state`."""
        return cls(state["num_atoms"], state["scale_nm"])

    def _log_det_decode(self, batch: int) -> Tensor:
        return (self.num_euclidean * self.scale_nm.log()).expand(batch)
