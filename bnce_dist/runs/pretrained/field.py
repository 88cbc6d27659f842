"""What the pretrained files do not say of themselves, and samples from them in our conventions."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import CenteredCartesian
from bnce_dist.chem.features import alanine_dipeptide_features, dipeptide_features
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import ValidatedPositions, exchangeable_hydrogens
from bnce_dist.core.device import device_from_name
from bnce_dist.core.divergence import reverse_jacobian, sample_with_log_density
from bnce_dist.core.errors import InputError
from bnce_dist.core.ode import midpoint
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.data.atomic import atomic_path
from bnce_dist.generator.architectures import build_path
from bnce_dist.generator.evaluation import log_num_images
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.pretrained import load_pretrained

ALANINE_DIPEPTIDE = "ACE-ALA-NME"
TIME_EXPONENT = 2.0
"""Of the steps: equal ones are too long near the data, where stiff bonds have a width of 0.03.
Ten of them make bonds and angles a third too narrow, which no weight can repair."""


@dataclass(frozen=True)
class PretrainedField:
    """How a pretrained velocity field is meant to be used.

    All of them run on straight lines between data and standard normal noise. The published noise
    is not mean-free, the field is blind to its mean, so the mean-free subspace loses nothing.
    The order of atoms is that of the features: these are laid out for our order, and an
    equivariant field then answers in it.

    Args:
        unit_nm: The model's unit of length [nm].
        features: Node features of a molecule, in its order of atoms.
        parametrisation: Meaning of the network's output.
        sequence: The molecule it was trained on; any dipeptide if absent.
    """

    unit_nm: float
    features: Callable[[Molecule], Tensor]
    parametrisation: Literal["velocity", "endpoint"]
    sequence: str | None


_ANGSTROM, _THIRTIETH_OF_NM = 0.1, 1 / 30
_VELOCITY = PretrainedField(_ANGSTROM, alanine_dipeptide_features, "velocity", ALANINE_DIPEPTIDE)
_ENDPOINT = PretrainedField(_ANGSTROM, alanine_dipeptide_features, "endpoint", ALANINE_DIPEPTIDE)
_TRANSFERABLE = PretrainedField(_THIRTIETH_OF_NM, dipeptide_features, "velocity", None)

PRETRAINED_FIELDS = {
    "unweighted_ot.pt": _VELOCITY,
    "unweighted_ot_ema.pt": _VELOCITY,
    "trained_vector_5_layer_ot_ema.pt": _VELOCITY,
    "unweighted_ot_endpoint_tmax100_ema.pt": _ENDPOINT,
    "trained_vector_9_layer_kabsch_aa2_ema.pt": _TRANSFERABLE,
}
"""By the file's published name. ``tmax`` in a name was the cap of the loss weight 1 / t**2."""


@dataclass(frozen=True)
class PretrainedSampler:
    """Draws molecules from a pretrained field.

    Args:
        molecule: The molecule.
        coordinates: Between positions and the field's own space.
        velocity_field: The field, bound to the molecule.
    """

    molecule: Molecule
    coordinates: CenteredCartesian
    velocity_field: MeanFreeVelocity

    @classmethod
    def load(
        cls,
        path: Path,
        molecule: Molecule | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> "PretrainedSampler":
        """Read weights and bind them to a molecule.

        Args:
            path: A pretrained file under its published name.
            molecule: May be absent where there is only one.
            device: Where it will compute: ``cpu``, ``cuda`` or ``cuda:N``. What it is given and
                returns is on the CPU.

        Raises: InputError: unknown or unusable file, a molecule it was not trained on, or no such
            device.
        """
        place = device_from_name(device)
        entry = _entry(path)
        field = load_pretrained(path, entry.parametrisation)
        if molecule is None:
            molecule = Molecule.from_sequence(entry.sequence or _no_sequence(path))
        coordinates = CenteredCartesian(molecule.num_atoms, entry.unit_nm)
        velocity_field = MeanFreeVelocity(field, entry.features(molecule))
        return cls(molecule, coordinates.to(place), velocity_field.to(place))

    def prior(self, num_samples: int, seed: int) -> Tensor:
        """Return the noise that `sample` turns into molecules, ``(num_samples, dim)``."""
        return torch.randn(num_samples, self.coordinates.dim, generator=generator(seed, "prior"))

    def sample(
        self,
        z_prior: Tensor,
        *,
        num_steps: int,
        batch_size: int,
        time_exponent: float = TIME_EXPONENT,
    ) -> Iterator[Tensor]:
        """Yield batches of positions, ``(batch, atoms, 3)`` [nm].

        Args:
            z_prior: What `prior` returned.
            num_steps: Midpoint steps from noise to data.
            batch_size: How many at a time; it does not alter the samples.
            time_exponent: Above 1 the steps shorten towards the data.
        """
        for batch in z_prior.split(batch_size):
            start = batch.to(self._device)
            z = midpoint(self.velocity_field, start, num_steps, time_exponent=time_exponent)
            yield self.coordinates.decode(z)[0].cpu()

    def sample_with_log_density(
        self, z_prior: Tensor, *, num_steps: int, time_exponent: float = TIME_EXPONENT
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `sample` makes of noise, and its exact log density as one molecule.

        That is modulo rigid motion, and summed over the images that the field cannot tell apart:
        the two hands, and the two numberings of each atom's hydrogens.

        Args:
            z_prior: Rows of `prior`, ``(batch, dim)``.
            num_steps: Of `sample`.
            time_exponent: Of `sample`.

        Returns: ``(batch, atoms, 3)`` [nm], ``(batch,)`` float64 [nats], and where the steps turn
            space inside out, ``(batch,)`` bool, as of `core.divergence.sample_with_log_density`.
        """
        z, log_density_z, inverted = sample_with_log_density(
            self.velocity_field,
            build_path("linear", Space(self.coordinates.num_euclidean)),
            z_prior.to(self._device),
            num_steps,
            time_exponent=time_exponent,
            differentiate=reverse_jacobian,
        )
        positions, log_det = self.coordinates.decode(z)
        log_num_numberings = len(exchangeable_hydrogens(self.molecule)) * math.log(2)
        log_images = log_num_images(self.molecule, self.coordinates) + log_num_numberings
        log_volume = self.coordinates.log_rotation_volume - log_det
        log_density = log_density_z + log_volume + log_images
        return positions.cpu(), log_density.cpu(), inverted.cpu()

    @property
    def _device(self) -> torch.device:
        return self.coordinates.basis.device


def write_samples(path: Path, molecule: Molecule, validation: ValidatedPositions) -> None:
    """Write samples and what is known of each to one ``.npz`` file, atomically.

    Its arrays: ``positions_nm`` (samples, atoms, 3), inverted where they were D; ``intact``,
    ``mirrored`` and ``mixed`` (samples,); ``atom_names`` and ``elements`` (atoms,).
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            positions_nm=validation.positions_nm.float().numpy(),
            intact=validation.intact.numpy(),
            mirrored=validation.mirrored.numpy(),
            mixed=validation.mixed.numpy(),
            **fixed_arrays(molecule),
        )


def fixed_arrays(molecule: Molecule) -> dict[str, Any]:
    """Return the arrays of a file of samples that are not of its samples."""
    return {
        "atom_names": np.array(molecule.atom_names),
        "elements": np.array(molecule.elements),
    }


def _entry(path: Path) -> PretrainedField:
    if path.name not in PRETRAINED_FIELDS:
        remedy = "keep the published name of the file"
        raise InputError.unknown(f"weights {path}", path.name, PRETRAINED_FIELDS, remedy)
    return PRETRAINED_FIELDS[path.name]


def _no_sequence(path: Path) -> str:
    raise InputError(
        f"molecule for {path.name}",
        expected="a dipeptide",
        got="none",
        remedy="choose one with --sequence, e.g. AC",
    )
