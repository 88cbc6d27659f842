"""What is known of a sample of the emulator, wherever it was drawn."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnce_dist.chem.coordinates import CenteredCartesian, Coordinates
from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.validation import ValidatedPositions, has_native_chirality, validate
from bnce_dist.core.weights import log_weights
from bnce_dist.generator.target import Target

FloatArray = NDArray[np.float64]


@torch.no_grad()
def evaluate_samples(
    target: Target, coordinates: Coordinates, z: Tensor, log_density_z: Tensor
) -> dict[str, Tensor]:
    """Return model-space samples as molecules, with their potentials and densities.

    Samples that are no molecule get an infinite reduced potential, that is, weight zero.

    Args:
        target: Gives the reduced potential, phi, psi and the chirality centres.
        coordinates: Of the model.
        z: Samples, ``(samples, dim)``.
        log_density_z: Their log density in model space, ``(samples,)`` [nats].

    Returns: ``positions_nm`` ``(samples, atoms, 3)``; ``phi``, ``psi``, ``reduced_potential``,
        ``log_density``, ``log_det_decode``, ``valid``, ``native_chirality``, ``mirrored``,
        ``(samples,)``.
    """
    molecule = target.molecule
    validation, log_det = _validated(molecule, coordinates, z.double())
    positions = validation.positions_nm
    energy, _ = target.force_field.energy_and_forces_kj_mol(positions)
    potential = energy / (BOLTZMANN_KJ_MOL_KELVIN * target.force_field.temperature_kelvin)
    potential = torch.where(validation.intact & potential.isfinite(), potential, torch.inf)
    return {
        "positions_nm": positions,
        "phi": dihedral(positions, molecule.phi),
        "psi": dihedral(positions, molecule.psi),
        "reduced_potential": potential,
        "log_density": log_density_z.double() - log_det,
        "log_det_decode": log_det,
        "valid": validation.intact,
        "native_chirality": ~validation.mixed,
        "mirrored": validation.mirrored,
    }


def molecule_log_weights(
    reduced_potential: FloatArray, log_density: FloatArray, native_chirality: NDArray[np.bool_]
) -> FloatArray:
    """Return log weights ``-u - log_density``; what is not the molecule has none.

    Args:
        reduced_potential: ``(samples,)`` [kT]; infinite where a sample is broken.
        log_density: Of what the samples were drawn from, ``(samples,)`` [nats].
        native_chirality: Whether every centre is as in the molecule, ``(samples,)``.

    Returns: ``(samples,)`` [nats]; ``-inf`` for broken samples and those of another chirality.
    Raises: InputError: as `core.weights.log_weights`.
    """
    return log_weights(np.where(native_chirality, reduced_potential, np.inf), log_density)


def log_num_images(molecule: Molecule, coordinates: Coordinates) -> float:
    """Return the log of how many points of equal density one molecule stands for [nats].

    Cartesian models are blind to reflections: two points of one density become one molecule.
    """
    is_blind = isinstance(coordinates, CenteredCartesian) and molecule.chirality_centres
    return math.log(2) if is_blind else 0.0


def _validated(
    molecule: Molecule, coordinates: Coordinates, z: Tensor
) -> tuple[ValidatedPositions, Tensor]:
    """Return the molecules that samples stand for, and the log-determinant of the way there."""
    positions, log_det = coordinates.decode(z)
    if isinstance(coordinates, CenteredCartesian):
        log_det = log_det - log_num_images(molecule, coordinates)
        return validate(molecule, positions), log_det
    # Internal coordinates tell mirror images apart: the wrong one is another molecule.
    native = has_native_chirality(molecule, positions)
    intact = coordinates.validity(z)
    return ValidatedPositions(positions, intact, torch.zeros_like(native), ~native), log_det
