r"""Bonds, angles and torsions: measured, whitened, and turned back into positions.

The volume element of a molecule's positions factorises into that of its rigid motion, which
integrates to :math:`8 \pi^2 V` and is dropped, and :math:`\prod b^2 \prod \sin\theta` over the
bonds and angles of the Z-matrix; torsions, relative ones too, enter with a factor of one.

Inside, arrays have the batch last, ``(rows, 3, batch)`` or ``(rows, batch)``, so that gathering
atoms copies contiguous memory.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor

from bnce_dist.chem.coordinates.base import Coordinates, normalised_weights
from bnce_dist.chem.coordinates.torques import Torques
from bnce_dist.chem.coordinates.vectors import cross, dot, unit
from bnce_dist.chem.coordinates.zmatrix import ZMatrix
from bnce_dist.core.errors import InputError
from bnce_dist.core.path import wrap_angle

# Outside these the coordinates are taken as singular; no molecule comes near them.
BOND_RANGE_NM = (0.01, 10.0)
ANGLE_RANGE = (0.01, math.pi - 0.01)
# Molecules vary by 2e-3 nm or rad and more in every stiff coordinate, constrained bonds by 1e-6.
MIN_DEVIATION = 1e-5
MIN_EIGENVALUE = 1e-6
# Narrow torsions have standard deviations of 0.1 to 0.2 rad, up to 0.5 in proline's ring. A few
# mirrored residues or cis bonds are far from the mean; many pull the mean along but are broad.
BASIN_HALF_WIDTH = math.pi / 2
MAX_WEIGHT_OUTSIDE_BASIN = 0.01
MAX_NARROW_DEVIATION = 0.8


class WhitenedInternal(Coordinates):
    r"""Whitened stiff internal coordinates beside free torsions.

    The Euclidean block is :math:`z = A^{-1} (q - \mu)`, with :math:`q` the bonds, angles and
    narrow torsions, and :math:`\mu` and :math:`A A^T` their mean and covariance over a training
    set. Narrow torsions are unwrapped about their mean, so that their seam lies half a turn away
    from the data. The circular block holds the other torsions as they are. Densities are over
    molecules modulo rigid motion.

    A vector is valid when its bonds and angles are in ``BOND_RANGE_NM`` and ``ANGLE_RANGE`` and
    its narrow torsions within half a turn of their mean; on that set the map is one to one.

    Args:
        zmatrix: The atoms by which each atom is placed.
        mean: :math:`\mu`, bonds [nm], angles and narrow torsions [rad], ``(num_euclidean,)``.
        unwhitening: :math:`A`, ``(num_euclidean, num_euclidean)``.
    """

    rows: Tensor
    slots: Tensor
    torsion_order: Tensor
    torsion_slots: Tensor
    mean: Tensor
    unwhitening: Tensor
    whitening: Tensor
    log_det_unwhitening: Tensor

    def __init__(self, zmatrix: ZMatrix, mean: Tensor, unwhitening: Tensor) -> None:
        super().__init__()
        self.zmatrix = zmatrix
        self.num_atoms = zmatrix.num_atoms
        self.num_circular = sum(zmatrix.circular)
        num_narrow = self.num_atoms - 3 - self.num_circular
        self.stiff_sizes = (self.num_atoms - 1, self.num_atoms - 2, num_narrow)
        self.num_euclidean = sum(self.stiff_sizes)
        self.level_sizes = zmatrix.level_sizes
        self.torques = Torques(zmatrix).to(mean.dtype)
        rows = torch.tensor(zmatrix.rows)
        # In z the narrow torsions come first.
        torsion_order = torch.tensor(zmatrix.circular).argsort(stable=True)
        self.register_buffer("rows", rows)
        self.register_buffer("slots", rows[:, 0].argsort())
        self.register_buffer("torsion_order", torsion_order)
        self.register_buffer("torsion_slots", torsion_order.argsort())
        self.register_buffer("mean", mean)
        self.register_buffer("unwhitening", unwhitening)
        self.register_buffer("whitening", torch.linalg.inv(unwhitening))
        self.register_buffer("log_det_unwhitening", torch.linalg.slogdet(unwhitening).logabsdet)

    @classmethod
    def unwhitened(cls, zmatrix: ZMatrix) -> Self:
        """Return coordinates whose Euclidean block is the stiff coordinates themselves [nm, rad].

        Args:
            zmatrix: The atoms by which each atom is placed.
        """
        identity = torch.eye(len(zmatrix.stiff), dtype=torch.float64)
        return cls(zmatrix, mean=identity.new_zeros(len(identity)), unwhitening=identity)

    @classmethod
    def fit(cls, zmatrix: ZMatrix, positions_nm: Tensor, weights: Tensor | None = None) -> Self:
        r"""Whiten on a training set, in float64, by the ``covariance_root``.

        Samples with a narrow torsion in another basin do not enter mean and covariance.

        Args:
            zmatrix: The atoms by which each atom is placed.
            positions_nm: Training positions, ``(samples, atoms, 3)`` [nm].
            weights: Statistical weights of the samples, ``(samples,)``, not necessarily
                normalised; equal if absent.

        Raises: InputError: as for :meth:`encode`; too few samples; weights that are no weights;
            a coordinate that does not vary; a torsion that should be narrow and is not.
        """
        plain = cls.unwhitened(zmatrix)
        num_stiff = plain.num_euclidean
        stiff = plain.encode(positions_nm.cpu())[0][:, :num_stiff]
        _check_enough(len(stiff), num_stiff)
        weights = normalised_weights(weights, num_samples=len(stiff))
        mean, deviation = _unwrapped(stiff, weights, plain.stiff_sizes)
        weights = weights * _in_basin(zmatrix, deviation, weights)
        weights = weights / weights.sum()
        shift = weights @ deviation
        deviation = deviation - shift
        covariance = (deviation * weights[:, None]).T @ deviation
        _check_varies(zmatrix, covariance.diagonal().sqrt())
        return cls(zmatrix, mean=mean + shift, unwhitening=covariance_root(covariance))

    @property
    def circular_torsions(self) -> tuple[tuple[int, int, int, int], ...]:
        """Atom quadruples of the circular block, in its order."""
        return self.zmatrix.circular_torsions

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix of the stiff coordinates."""
        correlation_root = self.unwhitening / self.unwhitening.norm(dim=1, keepdim=True)
        return float(torch.linalg.cond(correlation_root.double())) ** 2

    def _encode(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        bonds, angles, torsions = self._measured(positions_nm)
        ordered = torch.cat((bonds, angles, torsions[self.torsion_order]))
        stiff, circular = ordered.split((self.num_euclidean, self.num_circular))
        bonds_off, angles_off, narrow_off = (stiff - self.mean[:, None]).split(self.stiff_sizes)
        deviation = torch.cat((bonds_off, angles_off, wrap_angle(narrow_off)))
        z = torch.cat((self.whitening @ deviation, wrap_angle(circular)))
        return z.T.contiguous(), -self.log_det_unwhitening - _log_volume(bonds, angles)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Coordinates.decode`."""
        stiff, circular = self._split(z)
        bonds, angles, narrow = self._clamped(stiff)
        circular = torch.where(circular.isfinite(), circular, 0.0)
        torsions = torch.cat((narrow, circular))[self.torsion_slots]
        placed = self._place(bonds, angles, torsions)
        positions = placed[self.slots].permute(2, 0, 1).contiguous()
        return positions, self.log_det_unwhitening + _log_volume(bonds, angles)

    @torch.no_grad()
    def pull_back(self, z: Tensor, positions_nm: Tensor, gradient: Tensor) -> Tensor:
        """See :meth:`Coordinates.pull_back`; analytic, at about the cost of ``decode``."""
        stiff, circular = self._split(z)
        bonds, angles, narrow = self._clamped(stiff)
        by_bonds, by_angles, by_torsions = self.torques(
            *(array.permute(1, 2, 0).contiguous() for array in (positions_nm, gradient))
        )
        by_bonds = by_bonds + 2 / bonds
        by_angles = by_angles + angles.cos() / angles.sin()
        by_stiff, by_circular = torch.cat(
            (by_bonds, by_angles, by_torsions[self.torsion_order])
        ).split((self.num_euclidean, self.num_circular))
        free = stiff == torch.cat((bonds, angles, narrow))
        by_white = self.unwhitening.T @ torch.where(free, by_stiff, 0.0)
        by_circular = torch.where(circular.isfinite(), by_circular, 0.0)
        return torch.cat((by_white, by_circular)).T.contiguous()

    def validity(self, z: Tensor) -> Tensor:
        """See :meth:`Coordinates.validity`."""
        stiff, circular = self._split(z)
        return (stiff == torch.cat(self._clamped(stiff))).all(0) & circular.isfinite().all(0)

    def in_basin(self, positions_nm: Tensor) -> Tensor:
        """See :meth:`Coordinates.in_basin`: narrow torsions within pi/2 of their mean."""
        stiff, _ = self._split(self.encode(positions_nm)[0])
        narrow = (stiff - self.mean[:, None]).split(self.stiff_sizes)[2]
        return (narrow.abs() <= math.pi / 2).all(0)

    def to_state(self) -> dict[str, Any]:
        """See :meth:`Coordinates.to_state`; save in float64, convert afterwards."""
        return {
            "kind": "WhitenedInternal",
            "rows": self.rows,
            "circular": torch.tensor(self.zmatrix.circular),
            "mean": self.mean,
            "unwhitening": self.unwhitening,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """See :meth:`Coordinates.from_state`."""
        rows = tuple(tuple(row) for row in state["rows"].tolist())
        zmatrix = ZMatrix(rows=rows, circular=tuple(state["circular"].tolist()))
        return cls(zmatrix, mean=state["mean"], unwhitening=state["unwhitening"])

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stiff internal coordinates and the circular ones, batch last."""
        z = self._checked_vectors(z).to(self.mean).T
        white, circular = z.split((self.num_euclidean, self.num_circular))
        return self.mean[:, None] + self.unwhitening @ white, circular

    def _clamped(self, stiff: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return bonds, angles and narrow torsions, moved into the valid range where outside."""
        mean = self.mean[:, None]
        bonds, angles, narrow = torch.where(stiff.isnan(), mean, stiff).split(self.stiff_sizes)
        centre = mean.split(self.stiff_sizes)[2]
        narrow = narrow.clamp(centre - math.pi, centre + math.pi)
        return bonds.clamp(*BOND_RANGE_NM), angles.clamp(*ANGLE_RANGE), narrow

    def _place(self, bonds: Tensor, angles: Tensor, torsions: Tensor) -> Tensor:
        """Return positions in the order of the rows, ``(atoms, 3, batch)``."""
        zero = torch.zeros_like(bonds[0])
        centre = torch.stack((bonds[0], zero, zero))
        bend = torch.stack((-angles[0].cos(), angles[0].sin(), zero))
        placed = torch.stack((torch.zeros_like(centre), centre, centre + bonds[1] * bend))

        radial = bonds[2:] * angles[1:].sin()
        local = torch.stack(
            (-bonds[2:] * angles[1:].cos(), radial * torsions.cos(), radial * torsions.sin()), dim=1
        )
        references = self.slots[self.rows[3:, 1:]]
        for offsets, atoms in zip(
            local.split(self.level_sizes), references.split(self.level_sizes), strict=True
        ):
            bonded, angle, torsion = (placed.index_select(0, column) for column in atoms.T)
            axis = unit(bonded - angle)
            normal = unit(cross(angle - torsion, axis))
            along, inward, upward = offsets[:, :, None].unbind(1)
            new = bonded + along * axis + inward * cross(normal, axis) + upward * normal
            placed = torch.cat((placed, new))
        return placed

    def _measured(self, positions_nm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return bonds, angles and torsions, batch last."""
        positions = positions_nm.to(self.mean)
        return _measure(positions.permute(1, 2, 0).contiguous(), self.rows)

    def _require_regular(self, positions_nm: Tensor) -> None:
        bonds, angles, _ = self._measured(positions_nm)
        lengths, bends = (
            (values < low) | (values > high)
            for values, (low, high) in ((bonds, BOND_RANGE_NM), (angles, ANGLE_RANGE))
        )
        singular = torch.cat((lengths, bends)).T
        if singular.any():
            sample, row = singular.nonzero()[0].tolist()
            raise InputError(
                "geometry",
                expected="bonds of {:g} to {:g} nm, angles of {:.3g} to {:.3g} rad".format(
                    *BOND_RANGE_NM, *ANGLE_RANGE
                ),
                got=f"{torch.cat((bonds, angles))[row, sample]:.3g} for atoms "
                f"{self.zmatrix.stiff[row]} of sample {sample}",
                remedy="drop the sample: atoms coincide, lie on a line or have come apart",
            )


def covariance_root(covariance: Tensor) -> Tensor:
    r"""Return the square root of a covariance that stays closest to the coordinates themselves.

    :math:`A = V^{1/2} P^{1/2}`, with :math:`V` the variances and :math:`P` the correlations, whose
    eigenvalues are floored: each coordinate of :math:`A^{-1} q` is as close as can be to the one of
    :math:`q` that it came from.

    Args:
        covariance: ``(coordinates, coordinates)``, of coordinates that vary.

    Returns: :math:`A`, of the same shape.
    Source: Kessy, Lewin and Strimmer (2018), Optimal whitening and decorrelation, ZCA-cor.
    """
    scale = covariance.diagonal().sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    root = (vectors * eigenvalues.clamp(min=MIN_EIGENVALUE).sqrt()) @ vectors.T
    return scale[:, None] * root


def _measure(positions: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return bonds, angles and torsions of positions ``(atoms, 3, batch)``."""

    def difference(first_row: int, head: int, tail: int) -> Tensor:
        index = rows[first_row:]
        return positions.index_select(0, index[:, head]) - positions.index_select(0, index[:, tail])

    arm, axis, far = difference(1, 0, 1), difference(2, 2, 1), difference(3, 3, 2)
    normal = cross(axis, arm[1:])
    bonds = dot(arm, arm).sqrt()
    angles = torch.atan2(dot(normal, normal).sqrt(), dot(arm[1:], axis))
    arm, axis, normal = arm[2:], axis[1:], normal[1:]
    far_normal = cross(axis, far)
    sine = -dot(axis, axis).sqrt() * dot(arm, far_normal)
    return bonds, angles, torch.atan2(sine, dot(normal, far_normal))


def _log_volume(bonds: Tensor, angles: Tensor) -> Tensor:
    return 2 * bonds.log().sum(0) + angles.sin().log().sum(0)


def _unwrapped(
    stiff: Tensor, weights: Tensor, sizes: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """Return the mean, circular for torsions, and the deviations from it along the short way."""
    linear, narrow = stiff.split((sizes[0] + sizes[1], sizes[2]), dim=1)
    direction = torch.atan2(weights @ narrow.sin(), weights @ narrow.cos())
    mean = torch.cat((weights @ linear, direction))
    deviation = torch.cat((linear - weights @ linear, wrap_angle(narrow - direction)), dim=1)
    return mean, deviation


def _check_enough(num_samples: int, num_stiff: int) -> None:
    if num_samples <= num_stiff:
        raise InputError(
            "number of training samples",
            expected=f"more than the {num_stiff} stiff coordinates",
            got=num_samples,
            remedy="simulate longer or save frames more often",
        )


def _in_basin(zmatrix: ZMatrix, deviation: Tensor, weights: Tensor) -> Tensor:
    """Return which samples have every narrow torsion near its mean, ``(samples,)`` bool."""
    first_torsion = 2 * zmatrix.num_atoms - 3
    torsions = deviation[:, first_torsion:]
    outside = torsions.abs() > BASIN_HALF_WIDTH
    broad = (weights @ torsions.square()).sqrt() > MAX_NARROW_DEVIATION
    broad |= weights @ outside.double() > MAX_WEIGHT_OUTSIDE_BASIN
    if broad.any():
        torsion = int(broad.nonzero()[0])
        extreme = int(torsions[:, torsion].abs().argmax())
        raise InputError(
            f"torsion of atoms {zmatrix.stiff[first_torsion + torsion]}",
            expected=f"a spread below {MAX_NARROW_DEVIATION} rad, and {BASIN_HALF_WIDTH:.3g} rad "
            f"exceeded by less than {MAX_WEIGHT_OUTSIDE_BASIN:.0%}",
            got=f"two basins: sample {extreme} is {torsions[extreme, torsion]:.3g} rad off",
            remedy="look for mirrored molecules or cis peptide bonds in the training set",
        )
    return ~outside.any(1)


def _check_varies(zmatrix: ZMatrix, deviation: Tensor) -> None:
    if (deviation < MIN_DEVIATION).any():
        coordinate = int(deviation.argmin())
        raise InputError(
            f"coordinate of atoms {zmatrix.stiff[coordinate]}",
            expected=f"a standard deviation above {MIN_DEVIATION} nm or rad",
            got=f"{deviation[coordinate]:.3g}",
            remedy="simulate without constraints: a frozen coordinate has no density",
        )
